"""References in the form that the kernel reads, kept for the next time under a limit of bytes."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Record:
    """One image's references."""

    at: int
    """Where they begin in ``RecordCache.cell``."""
    foreign: Mapping[str, int]
    """Ids given to words that the frequencies do not know."""


class RecordCache:
    """Records in one stretch of memory, in the order they came.

    When the next one would not fit, all are dropped: it costs cooking each again once, and needs no
    bookkeeping about which was used when.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # Memory is only taken as it is written to.
        self.cell: NDArray[np.uint64] = np.empty(max(1, max_bytes // 8), dtype=np.uint64)
        self._records: dict[Hashable, Record] = {}
        self._num_cells = 0
        self._key_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Of the records and of what they are found by."""
        return 8 * self._num_cells + self._key_bytes

    def __len__(self) -> int:
        return len(self._records)

    def get(self, key: Hashable) -> Record | None:
        return self._records.get(key)

    def has_room_for(self, key: Hashable, cell: NDArray[np.uint64]) -> bool:
        return self.num_bytes + cell.nbytes + _key_bytes(key) <= self._max_bytes

    def clear(self) -> None:
        self._records.clear()
        self._num_cells = self._key_bytes = 0

    def add(self, key: Hashable, cell: NDArray[np.uint64], foreign: Mapping[str, int]) -> Record:
        """Keep a record. One that is larger than the limit is kept alone."""
        if not self.has_room_for(key, cell) and self._records:
            raise ValueError("no room for another record: clear the cache first")
        if self._num_cells + len(cell) > len(self.cell):
            self.cell = np.empty(len(cell), dtype=np.uint64)
        record = Record(at=self._num_cells, foreign=foreign)
        self.cell[record.at : record.at + len(cell)] = cell
        self._num_cells += len(cell)
        self._key_bytes += _key_bytes(key)
        self._records[key] = record
        return record


def _key_bytes(key: Hashable) -> int:
    """Memory of a tuple of strings or of tuples, and its place in a dictionary."""
    parts = key if isinstance(key, tuple) else ()
    return 200 + sum(
        sys.getsizeof(part) + (32 * len(part) if isinstance(part, tuple) else 0) for part in parts
    )
