"""What every one of the 256^3 colours counts for: one table, built once in a process.

Each colour has a code of four bits: its hue bin (0 to 6), plus 8 if it is vivid. Two colours that
differ only in the lowest bit of red share a byte, so the table has 8 MB. The other 23 bits are
interleaved to the byte's address: colours that are alike lie in one cache line (a cube of 5 levels
a side), and a photograph of 512 x 512 pixels touches some 6,000 of the 131,072 lines.

The codes are exact: no colour is nearer to a border than 1.5e-7 of chroma or 2.0e-8 of a bin, and
the float64 arithmetic here errs by 1e-13. Instead of an angle the bin needs six signs, one for
each border's half-plane, and instead of a library's cube root (20 ns) it takes the inverse cube
root by iteration, which processors do for several colours at once.

Axes: L the 256 levels of a channel, X the table's bytes, E borders between hue bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.colorization.definition import (
    CHROMA_THRESHOLD,
    NUM_HUE_BINS,
    HueRange,
    VividRule,
    check_switches,
)
from rewardtune.tasks.colorization.lab import WHITE_3, XYZ_FROM_LINEAR_33, linear_levels
from rewardtune.tasks.kernel import compiled


@dataclass(frozen=True, slots=True, eq=False)
class ColourTable:
    """Codes of all colours under one reading of the definition.

    The byte of a colour is ``code_X[red_L[r] + green_L[g] + blue_L[b]]``; its lower half is the
    code where red is even, the upper half where it is odd.
    """

    code_X: NDArray[np.uint8]
    red_L: NDArray[np.uint32]
    green_L: NDArray[np.uint32]
    blue_L: NDArray[np.uint32]


@cache  # four readings at most
def colour_table(*, vivid_rule: VividRule, hue_range: HueRange) -> ColourTable:
    """The table of one reading; built at the first call (a tenth of a second), then kept.

    Raises:
        ValueError: an unknown switch.
    """
    check_switches(vivid_rule=vivid_rule, hue_range=hue_range)
    circle = 2 * np.pi if hue_range == "full" else np.pi
    border_E = circle * (np.arange(1, NUM_HUE_BINS) / NUM_HUE_BINS - 0.5)
    red_L, green_L, blue_L = _addresses()
    code_X = np.empty(1 << 23, dtype=np.uint8)
    _fill(
        code_X,
        red_L,
        green_L,
        blue_L,
        linear_levels(),
        XYZ_FROM_LINEAR_33 / WHITE_3[:, None],
        np.cos(border_E),
        np.sin(border_E),
        hue_range == "half",
        CHROMA_THRESHOLD**2 if vivid_rule == "chroma" else CHROMA_THRESHOLD,
    )
    return ColourTable(code_X, red_L, green_L, blue_L)


def _addresses() -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """What each channel's levels add to a byte's address: their bits, two apart."""
    level_L = np.arange(256)

    def spread(bits_L: NDArray[np.integer[Any]], shift: int) -> NDArray[np.uint32]:
        spread_L = np.zeros(256, dtype=np.uint32)
        for bit in range(8):
            spread_L |= (((bits_L >> bit) & 1) << (3 * bit + shift)).astype(np.uint32)
        return spread_L

    return spread(level_L >> 1, 2), spread(level_L, 1), spread(level_L, 0)


@compiled
def lab_function(xyz: NDArray[np.float64], start: float, result: NDArray[np.float64]) -> None:
    """Cube root of each start + xyz, in [0, 1.1], or CIELAB's line up to 0.008856."""
    for i in range(len(xyz)):
        t = start + xyz[i]
        # An inverse cube root from the exponent's bits, good to 4%; a step takes the error to
        # its third power or better.
        third = np.float64(t).view(np.int64) * (1 / 3)
        y = np.int64(np.int64(0x553EF0FF289DD796) - np.int64(third)).view(np.float64)
        for _ in range(3):
            error = 1.0 - t * y * y * y
            y += y * error * (1 / 3 + error * (2 / 9 + error * (14 / 81)))
        result[i] = t * y * y if t > 0.008856 else 7.787 * t + 16 / 116


@compiled
def _codes(
    lab_3L: NDArray[np.float64],
    cos_E: NDArray[np.float64],
    sin_E: NDArray[np.float64],
    is_half: bool,
    vivid_above: float,
    code_L: NDArray[np.uint8],
) -> None:
    # In names of their own: reads from an array in the loop keep it from being vectorised.
    cos_1, cos_2, cos_3 = cos_E[0], cos_E[1], cos_E[2]
    cos_4, cos_5, cos_6 = cos_E[3], cos_E[4], cos_E[5]
    sin_1, sin_2, sin_3 = sin_E[0], sin_E[1], sin_E[2]
    sin_4, sin_5, sin_6 = sin_E[3], sin_E[4], sin_E[5]
    for level in range(256):
        a = 500.0 * (lab_3L[0, level] - lab_3L[1, level])
        b = 200.0 * (lab_3L[1, level] - lab_3L[2, level])
        sign = -1.0 if is_half & (a < 0) else 1.0
        u, v = sign * a, sign * b
        # On the circle a hue from 0 up is past every border at a negative angle, and one below 0
        # before all others. Only black lies on the borders' lines; its hue, 0, is past three.
        is_upper = (v >= 0) & (not is_half)
        is_near = is_upper | is_half
        code = np.uint8(a * a + b * b > vivid_above) << 3
        code += np.uint8((cos_1 * v >= sin_1 * u) | is_upper)
        code += np.uint8((cos_2 * v >= sin_2 * u) | is_upper)
        code += np.uint8((cos_3 * v >= sin_3 * u) | is_upper)
        code += np.uint8((cos_4 * v > sin_4 * u) & is_near)
        code += np.uint8((cos_5 * v > sin_5 * u) & is_near)
        code += np.uint8((cos_6 * v > sin_6 * u) & is_near)
        code_L[level] = code


@compiled
def _fill(
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    linear_L: NDArray[np.float64],
    xyz_33: NDArray[np.float64],
    cos_E: NDArray[np.float64],
    sin_E: NDArray[np.float64],
    is_half: bool,
    vivid_above: float,
) -> None:
    blue_xyz_3L = np.empty((3, 256))
    for row in range(3):
        blue_xyz_3L[row] = xyz_33[row, 2] * linear_L
    lab_3L = np.empty((3, 256))
    code_2L = np.empty((2, 256), dtype=np.uint8)
    for red in range(0, 256, 2):
        for green in range(256):
            for odd in range(2):
                for row in range(3):
                    light = xyz_33[row, 0] * linear_L[red + odd] + xyz_33[row, 1] * linear_L[green]
                    lab_function(blue_xyz_3L[row], light, lab_3L[row])
                _codes(lab_3L, cos_E, sin_E, is_half, vivid_above, code_2L[odd])
            for blue in range(256):
                both = code_2L[0, blue] | (code_2L[1, blue] << 4)
                code_X[red_L[red] + green_L[green] + blue_L[blue]] = both
