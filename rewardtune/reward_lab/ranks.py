"""Rank correlation, ties and gaps included.

Axes: N observations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spearman(first_N: ArrayLike, second_N: ArrayLike) -> float:
    """Correlation of the ranks of two series, in [-1, 1].

    Observations with a NaN in either series are left out; infinities are ranked like any number.
    NaN where nothing can be said: fewer than two observations, or one series all ties.

    Raises:
        ValueError: the series are not of one length.

    Source: Spearman 1904; tied values share the mean of their ranks, as in scipy's spearmanr.
    """
    first = np.asarray(first_N, dtype=np.float64)
    second = np.asarray(second_N, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"rank correlation needs two series of one length, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    is_known = ~(np.isnan(first) | np.isnan(second))
    rank_N, other_N = mean_ranks(first[is_known]), mean_ranks(second[is_known])
    if len(rank_N) < 2:
        return float("nan")
    rank_N, other_N = rank_N - rank_N.mean(), other_N - other_N.mean()
    scale = np.sqrt(np.sum(rank_N**2) * np.sum(other_N**2))
    return float(np.sum(rank_N * other_N) / scale) if scale > 0 else float("nan")


def mean_ranks(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 [N]; equal values share the mean of the ranks that they take up."""
    _, place_N, count = np.unique(value_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank_N: NDArray[np.float64] = (last - (count - 1) / 2)[place_N]
    return rank_N
