"""The colourfulness reward of whole batches at native speed: one pass, one thread.

Counts what ``definition.py`` defines, colour by colour exactly. A pixel costs three look-ups for
the address of its colour, one for the colour's code and one for what that code adds: eight counters
of a byte each in one 64-bit word, seven hues and the vivid pixels, emptied every 254 pixels before
any can overflow. No array of the picture's size is made.

Axes: N pictures, H height, W width, M pixels of a picture, 3 channels, B hue bins, L levels of a
channel, X bytes of the colour table, D codes of two colours each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.colorization.colour_table import colour_table
from rewardtune.tasks.colorization.definition import NUM_HUE_BINS, HueRange, VividRule, hue_entropy
from rewardtune.tasks.kernel import compiled


@dataclass(frozen=True, slots=True, eq=False)
class ColourRewards:
    """Counts of each picture of a batch, and the reward they make."""

    num_pixels: int
    """Of each picture."""
    num_vivid_N: NDArray[np.int64]
    hue_count_NB: NDArray[np.int64]

    @property
    def vivid_N(self) -> NDArray[np.float64]:
        """Fraction of the pixels that are vivid."""
        return self.num_vivid_N / self.num_pixels

    @property
    def entropy_N(self) -> NDArray[np.float64]:
        """Of the hue over all pixels, in nats."""
        return hue_entropy(self.hue_count_NB)

    @property
    def reward_N(self) -> NDArray[np.float64]:
        """Vivid fraction times hue entropy, 0 to ln 7."""
        return self.vivid_N * self.entropy_N


def colour_rewards(
    images_NHW3: NDArray[np.uint8] | NDArray[np.floating[Any]],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> ColourRewards:
    """Count vivid pixels and hues of every picture.

    Args:
        images_NHW3: sRGB levels as uint8, or floats in [-1, 1] as a decoder returns them: those
            become levels here, pixel by pixel, as ``definition.round_to_levels`` says.
        vivid_rule, hue_range: see ``definition.py``.

    Raises:
        ValueError: another shape or dtype, no pixels, NaN or infinity (names the picture), or an
            unknown switch.
    """
    if images_NHW3.ndim != 4 or images_NHW3.shape[3] != 3:
        raise ValueError(
            f"pictures must be [N, H, W, 3] with three channels last, got {list(images_NHW3.shape)}"
        )
    num_images, num_pixels = len(images_NHW3), images_NHW3.shape[1] * images_NHW3.shape[2]
    if num_pixels == 0:
        raise ValueError("pictures without pixels have no colourfulness")
    is_float = np.issubdtype(images_NHW3.dtype, np.floating)
    if not is_float and images_NHW3.dtype != np.uint8:
        raise ValueError(f"pictures must be uint8, or floats in [-1, 1], got {images_NHW3.dtype}")
    # Read-only arrays, as Pillow's are, are not copied: warm_up compiles for them too.
    images_NM3 = np.ascontiguousarray(images_NHW3).reshape(num_images, num_pixels, 3)
    if is_float and images_NM3.dtype != np.float32:
        images_NM3 = images_NM3.astype(np.float64, copy=False)
    table = colour_table(vivid_rule=vivid_rule, hue_range=hue_range)
    count_NB = np.zeros((num_images, NUM_HUE_BINS + 1), dtype=np.int64)
    count: Callable[..., int] = _count_floats if is_float else _count_levels
    broken = count(
        images_NM3, table.code_X, table.red_L, table.green_L, table.blue_L, _WORTH_D, count_NB
    )
    if broken >= 0:
        raise ValueError(
            f"picture {broken} of the batch has a pixel that is NaN or infinite: expected numbers "
            "in [-1, 1]"
        )
    return ColourRewards(
        num_pixels=num_pixels,
        num_vivid_N=count_NB[:, NUM_HUE_BINS],
        hue_count_NB=count_NB[:, :NUM_HUE_BINS],
    )


def warm_up(*, vivid_rule: VividRule = "chroma", hue_range: HueRange = "full") -> None:
    """Compile the kernels (seconds, once per machine) and build the table of this reading."""
    for dtype in (np.uint8, np.float32, np.float64):
        images_NHW3 = np.zeros((1, 1, 1, 3), dtype=dtype)
        colour_rewards(images_NHW3, vivid_rule=vivid_rule, hue_range=hue_range)
        images_NHW3.flags.writeable = False
        colour_rewards(images_NHW3, vivid_rule=vivid_rule, hue_range=hue_range)


def _worth() -> NDArray[np.uint64]:
    """What the counters gain by a byte of the table [512]: red even, then red odd."""
    code = np.arange(512) % 256 >> np.where(np.arange(512) < 256, 0, 4) & 15
    hue_bin, is_vivid = (code & 7).astype(np.uint64), (code >> 3).astype(np.uint64)
    # Code 7 is no hue's and never read.
    worth_D: NDArray[np.uint64] = (np.uint64(1) << 8 * hue_bin) + (is_vivid << np.uint64(56))
    return worth_D


_WORTH_D = _worth()


@compiled
def _add_block(
    block_M3: NDArray[np.uint8],
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    worth_D: NDArray[np.uint64],
    count_B: NDArray[np.int64],
) -> None:
    """Count at most 255 pixels."""
    counters = np.uint64(0)
    # Unsigned indices: for signed ones every access would check for a negative one.
    for m in range(np.uint64(len(block_M3))):
        red = block_M3[m, np.uint64(0)]
        green, blue = block_M3[m, np.uint64(1)], block_M3[m, np.uint64(2)]
        both = np.uint64(code_X[red_L[red] + green_L[green] + blue_L[blue]])
        counters += worth_D[both | (np.uint64(red & 1) << np.uint64(8))]
    for b in range(8):
        count_B[b] += np.int64((counters >> np.uint64(8 * b)) & np.uint64(255))


@compiled
def _count_levels(
    images_NM3: NDArray[np.uint8],
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    worth_D: NDArray[np.uint64],
    count_NB: NDArray[np.int64],
) -> int:
    num_images, num_pixels = images_NM3.shape[:2]
    for n in range(num_images):
        for start in range(0, num_pixels, 254):
            block_M3 = images_NM3[n, start : min(start + 254, num_pixels)]
            _add_block(block_M3, code_X, red_L, green_L, blue_L, worth_D, count_NB[n])
    return -1


@compiled
def _round_block(values: NDArray[np.floating[Any]], levels: NDArray[np.uint8]) -> int:
    """Write what ``round_to_levels`` makes of the values; returns how many of them are finite."""
    num_finite = 0
    # In operations that processors do for several values at once: comparisons for min and max,
    # and for rint the sum with 1.5 x 2^52, whose last digit is worth 1.
    for i in range(len(values)):
        value = float(values[i])
        num_finite += int(value - value == 0)
        value = value if value > -1.0 else -1.0
        value = value if value < 1.0 else 1.0
        level = (value + 1.0) * 127.5 + 6755399441055744.0 - 6755399441055744.0
        levels[i] = np.uint8(np.int32(level))
    return num_finite


@compiled
def _count_floats(
    images_NM3: NDArray[np.floating[Any]],
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    worth_D: NDArray[np.uint64],
    count_NB: NDArray[np.int64],
) -> int:
    """Returns the first picture that has a value which is not finite, else -1."""
    num_images, num_pixels = images_NM3.shape[:2]
    block_M3 = np.empty((254, 3), dtype=np.uint8)
    levels = block_M3.reshape(-1)
    for n in range(num_images):
        values = images_NM3[n].reshape(-1)
        for start in range(0, num_pixels, 254):
            num = min(254, num_pixels - start)
            if _round_block(values[3 * start : 3 * (start + num)], levels) < 3 * num:
                return n
            _add_block(block_M3[:num], code_X, red_L, green_L, blue_L, worth_D, count_NB[n])
    return -1
