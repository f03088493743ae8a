"""Counting in how many images each n-gram occurs, in memory or on disk.

Every n-gram of every caption becomes a row: its key, and the number of the caption's image. Rows
that are sorted and made unique say in how many images a key occurs. What does not fit in memory is
sorted in runs, and the runs are merged.

The key 0, which no n-gram has, stands for the caption itself: its count is the number of images.

Axes: W words of all captions, C captions, N rows, K columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.captioning.cider.definition import LONGEST
from rewardtune.tasks.captioning.cider.kernel import unsorted_rows
from rewardtune.tasks.captioning.cider.ngram_table import Entries
from rewardtune.tasks.kernel import plain


def ngram_rows(
    word_W: NDArray[np.int32],
    length_C: NDArray[np.int64],
    image_C: NDArray[np.int64],
    *,
    is_wide: bool,
) -> NDArray[np.uint64]:
    """The rows of some captions [K, N], sorted and unique: key (one or two columns), image."""
    return _unique(
        unsorted_rows(
            plain(word_W, np.int32),
            plain(length_C, np.int64),
            plain(image_C, np.int64),
            is_wide,
            LONGEST,
        )
    )


def _unique(row_KN: NDArray[np.uint64]) -> NDArray[np.uint64]:
    ordered_KN = row_KN[:, np.lexsort(row_KN[::-1])]
    is_new_N = np.ones(ordered_KN.shape[1], dtype=np.bool_)
    is_new_N[1:] = np.any(ordered_KN[:, 1:] != ordered_KN[:, :-1], axis=0)
    return ordered_KN[:, is_new_N]


def sorted_entries(key_KN: NDArray[np.uint64], count_N: NDArray[np.uint64]) -> Entries:
    """Entries in the order of their keys.

    Raises:
        ValueError: a key is given twice.
    """
    order_N = np.lexsort(key_KN[::-1])
    ordered_KN = key_KN[:, order_N]
    if np.any(np.all(ordered_KN[:, 1:] == ordered_KN[:, :-1], axis=0)):
        raise ValueError("an n-gram is given twice: add its counts up, or leave one out")
    return Entries(ordered_KN, count_N[order_N])


def merged(runs: Sequence[NDArray[np.uint64]], *, num_rows: int) -> Iterator[NDArray[np.uint64]]:
    """All rows of several sorted runs, sorted and unique, in blocks of about ``num_rows``."""
    position = [0] * len(runs)
    size = max(1, num_rows // max(1, len(runs)))
    while True:
        blocks = {
            r: np.asarray(run[:, position[r] : position[r] + size])
            for r, run in enumerate(runs)
            if position[r] < run.shape[1]
        }
        if not blocks:
            return
        # Rows up to here are all in memory: no run has any in what is not read yet.
        last_K = min(tuple(block[:, -1].tolist()) for block in blocks.values())
        taken = []
        for r, block in blocks.items():
            num_taken = _num_up_to(block, last_K)
            position[r] += num_taken
            taken.append(block[:, :num_taken])
        yield _unique(np.concatenate(taken, axis=1))


def _num_up_to(block_KN: NDArray[np.uint64], last_K: tuple[int, ...]) -> int:
    """How many of the sorted rows are not larger than ``last_K``."""
    is_below_N = np.zeros(block_KN.shape[1], dtype=np.bool_)
    is_equal_N = np.ones(block_KN.shape[1], dtype=np.bool_)
    for column_N, last in zip(block_KN, last_K, strict=True):
        is_below_N |= is_equal_N & (column_N < np.uint64(last))
        is_equal_N &= column_N == np.uint64(last)
    return int((is_below_N | is_equal_N).sum())


def counted(blocks: Iterable[NDArray[np.uint64]]) -> Iterator[Entries]:
    """The images of each key, from all rows in order; a key's rows may be in several blocks."""
    open_entry: Entries | None = None
    for row_KN in blocks:
        key_KN = row_KN[:-1]
        starts = np.flatnonzero(np.any(key_KN[:, 1:] != key_KN[:, :-1], axis=0)) + 1
        starts = np.concatenate([[0], starts])
        count_N = np.diff(starts, append=row_KN.shape[1]).astype(np.uint64)
        entries = Entries(key_KN[:, starts], count_N)
        if open_entry is not None:
            if np.array_equal(open_entry.key_KN[:, 0], entries.key_KN[:, 0]):
                entries.count_N[0] += open_entry.count_N[0]
            else:
                yield open_entry
        yield Entries(entries.key_KN[:, :-1], entries.count_N[:-1])
        open_entry = Entries(entries.key_KN[:, -1:], entries.count_N[-1:])
    if open_entry is not None:
        yield open_entry


class RunFolder:
    """Sorted runs of rows in a folder; read back as memory maps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_runs = 0

    def add(self, row_KN: NDArray[np.uint64]) -> None:
        np.save(self._folder / f"run-{self._num_runs}.npy", np.ascontiguousarray(row_KN))
        self._num_runs += 1

    def runs(self) -> list[NDArray[np.uint64]]:
        return [
            np.load(self._folder / f"run-{number}.npy", mmap_mode="r")
            for number in range(self._num_runs)
        ]
