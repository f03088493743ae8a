"""What tells that the colour reward is gamed, for whole batches at native speed: one thread.

The figures that ``tripwire.py`` defines. Which pixels are vivid, and of which hue, is looked up in
the reward's own table of colours; a and b are computed row by row, several pixels at once.

Axes: N pictures, H height, W width, 3 channels, L levels of a channel, X bytes of the colour
table, K sums of a picture.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.colorization.colour_table import colour_table, lab_function
from rewardtune.tasks.colorization.definition import HueRange, VividRule
from rewardtune.tasks.colorization.lab import WHITE_3, XYZ_FROM_LINEAR_33, linear_levels
from rewardtune.tasks.kernel import compiled

_NUM_CODES: Final = 16
_NUM_SUMS: Final = 4
"""Clipped pixels, chroma, differences of a, differences of b."""


def batch_tripwires(
    images_NHW3: NDArray[np.uint8],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> dict[str, NDArray[np.float64]]:
    """Figures [N] of every picture, by the names of ``ColourTripwires``'s fields.

    A picture's figures do not depend on its batch mates.

    Raises:
        ValueError: not uint8 [N, H, W, 3], no pixels, or an unknown switch.
    """
    if images_NHW3.dtype != np.uint8 or images_NHW3.ndim != 4 or images_NHW3.shape[3] != 3:
        raise ValueError(
            f"pictures must be uint8 [N, H, W, 3], got {images_NHW3.dtype} "
            f"{list(images_NHW3.shape)}: round_to_levels makes them of floats in [-1, 1]"
        )
    num_images, height, width = images_NHW3.shape[:3]
    num_pixels = height * width
    if num_pixels == 0:
        raise ValueError("pictures without pixels have no colours")
    table = colour_table(vivid_rule=vivid_rule, hue_range=hue_range)
    linear_L, xyz_33 = linear_levels(), XYZ_FROM_LINEAR_33 / WHITE_3[:, None]
    code_count_NC = np.zeros((num_images, _NUM_CODES), dtype=np.int64)
    sums_NK = np.zeros((num_images, _NUM_SUMS))
    _watch(
        np.ascontiguousarray(images_NHW3),
        table.code_X,
        table.red_L,
        table.green_L,
        table.blue_L,
        linear_L,
        xyz_33,
        code_count_NC,
        sums_NK,
    )
    vivid_count_NB = code_count_NC[:, _NUM_CODES // 2 :]
    clipped_N, chroma_N, differences_a_N, differences_b_N = sums_NK.T
    num_pairs = max(height * (width - 1) + (height - 1) * width, 1)
    return {
        "dominant_hue_ratio": vivid_count_NB.max(axis=1)
        / np.maximum(vivid_count_NB.sum(axis=1), 1),
        "chroma": chroma_N / num_pixels,
        "clipped_ratio": clipped_N / num_pixels,
        "total_variation_a": differences_a_N / num_pairs,
        "total_variation_b": differences_b_N / num_pairs,
    }


def warm_up() -> None:
    """Compile the kernel: seconds, once per machine."""
    images_NHW3 = np.zeros((1, 1, 1, 3), dtype=np.uint8)
    batch_tripwires(images_NHW3)
    images_NHW3.flags.writeable = False
    batch_tripwires(images_NHW3)


@compiled
def _watch(
    images_NHW3: NDArray[np.uint8],
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    linear_L: NDArray[np.float64],
    xyz_33: NDArray[np.float64],
    code_count_NC: NDArray[np.int64],
    sums_NK: NDArray[np.float64],
) -> None:
    num_images, height, width = images_NHW3.shape[:3]
    xyz_3W, lab_3W = np.empty((3, width)), np.empty((3, width))
    # Of this row and of the one above, in turn.
    ab_22W = np.empty((2, 2, width))
    for n in range(num_images):
        # One sum for each column, so that several are added to at once.
        sum_3W = np.zeros((3, width))
        num_clipped = 0
        for h in range(height):
            row_W3 = images_NHW3[n, h]
            _count_codes(row_W3, code_X, red_L, green_L, blue_L, code_count_NC[n])
            num_clipped += _count_clipped(row_W3)
            _to_xyz(row_W3, linear_L, xyz_33, xyz_3W)
            for channel in range(3):
                lab_function(xyz_3W[channel], 0.0, lab_3W[channel])
            _add_row(lab_3W, ab_22W[h % 2], ab_22W[1 - h % 2], h > 0, sum_3W)
        sums_NK[n, 0] = num_clipped
        for k in range(3):
            sums_NK[n, 1 + k] = sum_3W[k].sum()


@compiled
def _count_codes(
    row_W3: NDArray[np.uint8],
    code_X: NDArray[np.uint8],
    red_L: NDArray[np.uint32],
    green_L: NDArray[np.uint32],
    blue_L: NDArray[np.uint32],
    count_C: NDArray[np.int64],
) -> None:
    for w in range(len(row_W3)):
        red = row_W3[w, 0]
        both = code_X[red_L[red] + green_L[row_W3[w, 1]] + blue_L[row_W3[w, 2]]]
        count_C[(both >> (4 * (red & 1))) & 15] += 1


@compiled
def _count_clipped(row_W3: NDArray[np.uint8]) -> int:
    num_clipped = 0
    for w in range(len(row_W3)):
        # Levels 255 and 0 are the two whose next one, as a byte, is 0 or 1.
        num_clipped += int(
            (np.uint8(row_W3[w, 0] + 1) < 2)
            | (np.uint8(row_W3[w, 1] + 1) < 2)
            | (np.uint8(row_W3[w, 2] + 1) < 2)
        )
    return num_clipped


@compiled
def _to_xyz(
    row_W3: NDArray[np.uint8],
    linear_L: NDArray[np.float64],
    xyz_33: NDArray[np.float64],
    xyz_3W: NDArray[np.float64],
) -> None:
    for w in range(len(row_W3)):
        red, green, blue = linear_L[row_W3[w, 0]], linear_L[row_W3[w, 1]], linear_L[row_W3[w, 2]]
        for k in range(3):
            xyz_3W[k, w] = xyz_33[k, 0] * red + xyz_33[k, 1] * green + xyz_33[k, 2] * blue


@compiled
def _add_row(
    lab_3W: NDArray[np.float64],
    ab_2W: NDArray[np.float64],
    above_2W: NDArray[np.float64],
    has_above: bool,
    sum_3W: NDArray[np.float64],
) -> None:
    """Write the row's a and b; add to the sums of chroma and of both's differences."""
    width = lab_3W.shape[1]
    for w in range(width):
        a = 500.0 * (lab_3W[0, w] - lab_3W[1, w])
        b = 200.0 * (lab_3W[1, w] - lab_3W[2, w])
        ab_2W[0, w] = a
        ab_2W[1, w] = b
        sum_3W[0, w] += np.sqrt(a * a + b * b)
    for k in range(2):
        for w in range(1, width):
            sum_3W[1 + k, w] += abs(ab_2W[k, w] - ab_2W[k, w - 1])
        if has_above:
            for w in range(width):
                sum_3W[1 + k, w] += abs(ab_2W[k, w] - above_2W[k, w])
