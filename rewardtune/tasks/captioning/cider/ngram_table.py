"""N-grams as exact keys, and the sorted table in which kernels look them up.

An n-gram of up to four word ids is packed, each id plus one, into 64 bits while all ids fit in 16
("narrow"), else into two words of 64 bits ("wide"): different n-grams never share a key. The packed
key is then mixed by a one-to-one function, so that its top bits spread evenly.

A table is a flat array of cells: one entry of ``stride`` cells per slot, sorted by mixed key. An
entry's home is the top bits of its key; it stands there or behind, where the place was taken. Empty
slots repeat the entry that follows, and the last entry is larger than all keys. So a search starts
at home and goes on while keys are smaller: it needs no other test and cannot leave the table, a
table is written from its first slot to its last, and equal contents are equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NARROW_LIMIT = 2**16 - 1
"""Word ids below this make narrow keys."""
WIDE_LIMIT = 2**30
"""Word ids below this make wide keys."""
END_KEY = 2**64 - 1
"""Key of the entry behind the last."""


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """N-grams, sorted by mixed key, with the number of images of each. Axes: N n-grams."""

    key_KN: NDArray[np.uint64]
    """One row if keys are narrow, two if they are wide."""
    count_N: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.count_N)

    @property
    def is_wide(self) -> bool:
        return len(self.key_KN) == 2


def stride(*, is_wide: bool) -> int:
    """Cells of an entry: its key and its count."""
    return 3 if is_wide else 2


def home_shift(num_ngrams: int) -> int:
    """Bits by which a key is shifted to give its home: at least half of the homes stay free."""
    return 64 - max(1, (2 * num_ngrams - 1).bit_length())


def laid_out(
    blocks: Iterable[Entries], *, num_ngrams: int, is_wide: bool
) -> Iterator[NDArray[np.uint64]]:
    """The cells of the table, piece by piece.

    Args:
        blocks: all entries in order of their keys, cut anywhere.
        num_ngrams: how many entries these are.
    """
    shift = home_shift(num_ngrams)
    num_slots = 0
    for block in blocks:
        home_N = (block.key_KN[0] >> np.uint64(shift)).astype(np.int64)
        # Each at home, or one behind the entry before it.
        step_N = np.arange(len(block))
        slot_N = np.maximum.accumulate(np.maximum(home_N, num_slots) - step_N) + step_N
        copies_N = np.diff(slot_N, prepend=num_slots - 1)
        yield np.repeat(np.stack([*block.key_KN, block.count_N], axis=1), copies_N, axis=0).ravel()
        num_slots = int(slot_N[-1]) + 1 if len(block) else num_slots
    last = [END_KEY] * (stride(is_wide=is_wide) - 1) + [0]
    num_left = max(0, 2 ** (64 - shift) - num_slots) + 1
    while num_left > 0:
        yield np.tile(np.array(last, dtype=np.uint64), min(num_left, 2**16))
        num_left -= 2**16
