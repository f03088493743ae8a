"""What follows the products of the bfloat16 heads, in one pass each.

Rows are taken out of arrays before they are walked through: the compiler makes vector code of a
walk through a row, and none of a walk by computed indices.

Axes: T patches, C channels, P pixels of a patch, Q pixels of a run of them, D width of the
network, J instance ids that occur.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.kernel import compiled


@compiled
def mark_likeliest(
    logit_TCQ: NDArray[np.uint16],
    bias_CQ: NDArray[np.float32],
    best_Q: NDArray[np.float32],
    channel_TP: NDArray[np.int32],
    first: int,
) -> None:
    """Write the first channel whose logit plus bias is largest into ``channel_TP[:, first:]``.

    Args:
        logit_TCQ: bits of bfloat16 numbers, which are the upper halves of those of float32.
        best_Q: scratch.
    """
    num_patches, num_channels, num_pixels = logit_TCQ.shape
    for t in range(num_patches):
        channel_Q = channel_TP[t, first : first + num_pixels]
        best_Q[:] = -np.inf
        channel_Q[:] = 0
        for c in range(num_channels):
            bits_Q = logit_TCQ[t, c]
            biases_Q = bias_CQ[c]
            for q in range(num_pixels):
                bits = np.uint32(np.uint32(bits_Q[q]) << np.uint32(16))
                value = bits.view(np.float32) + biases_Q[q]
                is_better = value > best_Q[q]
                best_Q[q] = value if is_better else best_Q[q]
                channel_Q[q] = c if is_better else channel_Q[q]


@compiled
def sum_states(
    state_TD: NDArray[np.float32],
    place_PT: NDArray[np.int32],
    sum_JD: NDArray[np.float32],
    sum_DJP: NDArray[np.float32],
    count_JP: NDArray[np.float32],
) -> None:
    """Sum and count, for each pixel of a patch, the states of the patches that show an id there.

    Args:
        place_PT: which of the ids that occur, 0..J-1.
        sum_JD: scratch.
        sum_DJP, count_JP: overwritten.
    """
    num_pixels, num_patches = place_PT.shape
    num_ids, width = sum_JD.shape
    count_JP[:] = 0
    for p in range(num_pixels):
        sum_JD[:] = 0
        for t in range(num_patches):
            place = place_PT[p, t]
            count_JP[place, p] += 1
            sum_D = sum_JD[place]
            state_D = state_TD[t]
            for d in range(width):
                sum_D[d] += state_D[d]
        for d in range(width):
            for j in range(num_ids):
                sum_DJP[d, j, p] = sum_JD[j, d]


def warm_up() -> None:
    """Compile every kernel, or fetch it from numba's cache."""
    arrays: dict[str, NDArray[Any]] = {
        "uint16": np.zeros((1, 1, 1), np.uint16),
        "float32": np.zeros((1, 1), np.float32),
        "int32": np.zeros((1, 1), np.int32),
    }
    matrix, places = arrays["float32"], arrays["int32"]
    mark_likeliest(arrays["uint16"], matrix, matrix[0], places, 0)
    sum_states(matrix, places, matrix.copy(), matrix[None].copy(), matrix.copy())
