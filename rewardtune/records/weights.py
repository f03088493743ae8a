"""Weights between processes: bytes with dtype and shape beside, for no numpy type fits bfloat16.

Axes: B bytes, G groups, S sequences, T tokens.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewardtune.records.group import Published

_ALIGNMENT = 64
"""Where tensors may begin: a cache line."""
_PAGE_WORDS = 512
"""Words of 8 bytes that are summed to one for the digest: 4 KiB."""
_MAX_THREADS = 4
"""Of one digest or copy: what they wait for is memory, which a few cores keep busy."""
_LARGE_BYTES = 2**24
"""Below, threads take longer to start than they save."""
_PIECE_PAGES = 512
"""Pages that are summed and then copied: 2 MiB. Smaller pieces cost more calls, larger ones no
longer lie in the cache."""


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One parameter as contiguous bytes in the machine's (little-endian) order."""

    data_B: NDArray[np.uint8]
    dtype: str
    """As PyTorch names it, without its prefix: float32, bfloat16."""
    shape: tuple[int, ...]


PackedWeights = Mapping[str, PackedTensor]
"""Parameters by name."""


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Where one parameter lies in a buffer."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


class WeightBuffer(Mapping[str, PackedTensor]):
    """``PackedWeights`` whose tensors are views of one contiguous buffer, gaps filled with 0."""

    def __init__(self, data_B: NDArray[np.uint8], layout: Sequence[TensorLayout]) -> None:
        """Lay a view over ``data_B``, which may be longer than the last tensor needs.

        Raises:
            ValueError: the buffer is too short.
        """
        needed = buffer_bytes(layout)
        if len(data_B) < needed:
            raise ValueError(f"these weights need {needed} bytes, the buffer has {len(data_B)}")
        self.data_B = data_B[:needed]
        self.layout = tuple(layout)
        self._by_name = {tensor.name: tensor for tensor in layout}

    def __getitem__(self, name: str) -> PackedTensor:
        at = self._by_name[name]
        data_B = self.data_B[at.offset : at.offset + at.num_bytes]
        return PackedTensor(data_B=data_B, dtype=at.dtype, shape=at.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)


class UncheckedWeights(WeightBuffer):
    """Weights that nobody has compared with their digest yet: whoever reads them all does so."""

    def __init__(
        self,
        data_B: NDArray[np.uint8],
        layout: Sequence[TensorLayout],
        *,
        digest: str,
        damaged: Callable[[str], Exception],
    ) -> None:
        """
        Args:
            damaged: what to raise, given the digest that was found.

        Raises:
            ValueError: the buffer is too short.
        """
        super().__init__(data_B, layout)
        self._digest = digest
        self._damaged = damaged

    def require(self, found: str) -> None:
        """Raises: what ``damaged`` gives, if this is not their digest."""
        if found != self._digest:
            raise self._damaged(found)


@dataclass(frozen=True, slots=True)
class CanaryLogProbs:
    """What the learner's policy said of a fixed mini-batch with these very weights."""

    ordinals: tuple[int, ...]
    """Whose images, through their views."""
    tokens_GST: NDArray[np.int32]
    log_probs_GST: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightManifest:
    """What is said of published weights beside their bytes."""

    published: Published
    digest: str
    """See ``weights_digest``."""
    num_bytes: int
    tensors: tuple[TensorLayout, ...]
    canary: CanaryLogProbs | None = None


def lay_out(
    tensors: Iterable[tuple[str, str, tuple[int, ...]]], *, item_bytes: Mapping[str, int]
) -> tuple[TensorLayout, ...]:
    """Tensors (name, dtype, shape) one after the other, in the order given.

    Args:
        item_bytes: size of one element by dtype.
    """
    layout, offset = [], 0
    for name, dtype, shape in tensors:
        num_bytes = math.prod(shape) * item_bytes[dtype]
        layout.append(TensorLayout(name, dtype, shape, offset, num_bytes))
        offset = _aligned(offset + num_bytes)
    return tuple(layout)


def buffer_bytes(layout: Sequence[TensorLayout]) -> int:
    """Of a buffer that holds them all; never 0, since an empty file cannot be mapped."""
    return max(_ALIGNMENT, max((_aligned(t.offset + t.num_bytes) for t in layout), default=0))


def clear_gaps(data_B: NDArray[np.uint8], layout: Sequence[TensorLayout]) -> None:
    """Write 0 where no tensor lies, so that equal weights are equal bytes."""
    end = 0
    for tensor in layout:
        data_B[end : tensor.offset] = 0
        end = tensor.offset + tensor.num_bytes
    data_B[end:] = 0


def contiguous(weights: PackedWeights) -> WeightBuffer:
    """The same weights in one buffer: themselves if they are, else copied."""
    if isinstance(weights, WeightBuffer):
        return weights
    layout, offset = [], 0
    for name, tensor in weights.items():
        layout.append(TensorLayout(name, tensor.dtype, tensor.shape, offset, len(tensor.data_B)))
        offset = _aligned(offset + len(tensor.data_B))
    data_B = np.empty(buffer_bytes(layout), np.uint8)
    clear_gaps(data_B, layout)
    for at in layout:
        data_B[at.offset : at.offset + at.num_bytes] = weights[at.name].data_B
    return WeightBuffer(data_B, layout)


def manifest_of(
    published: Published,
    weights: WeightBuffer,
    *,
    digest: str | None = None,
    canary: CanaryLogProbs | None = None,
) -> WeightManifest:
    """What is to be said of these weights.

    Args:
        digest: theirs, where it is known already.
    """
    return WeightManifest(
        published=published,
        digest=weights_digest(weights) if digest is None else digest,
        num_bytes=len(weights.data_B),
        tensors=weights.layout,
        canary=canary,
    )


def weights_digest(weights: WeightBuffer, *, num_threads: int = 1) -> str:
    """SHA-256 of the layout and of the sum, modulo 2^64, of every 4 KiB of the buffer.

    Any one changed byte changes it for certain, and so do pages that are swapped, missing or
    zeroed; words that trade places within a page do not. It is there to find damage, not
    forgery: hashing all bytes (SHA-256, even CRC-32) takes 4 to 8 times as long as copying them,
    their sums less than half as long.
    """
    return _digest(weights, None, num_threads=num_threads)


def num_threads_of(weights: WeightBuffer) -> int:
    """How many threads read or copy these faster than one does."""
    if len(weights.data_B) < _LARGE_BYTES:
        return 1
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))


def copy_weights(weights: WeightBuffer, into_B: NDArray[np.uint8], *, num_threads: int = 1) -> str:
    """Copy the buffer, and give the digest of what was read.

    Each piece is summed just before it is copied, so that its copy reads it from the cache: both
    together take a tenth longer than the copy.
    """
    return _digest(weights, into_B, num_threads=num_threads)


def _digest(weights: WeightBuffer, into_B: NDArray[np.uint8] | None, *, num_threads: int) -> str:
    words = np.ascontiguousarray(weights.data_B).view(np.uint64)
    into = None if into_B is None else into_B.view(np.uint64)
    num_pages = len(words) // _PAGE_WORDS
    whole = num_pages * _PAGE_WORDS
    sums = np.empty(num_pages, np.uint64)

    def add(pages: range) -> None:
        for first in pages:
            last = min(first + pages.step, pages.stop)
            piece = words[first * _PAGE_WORDS : last * _PAGE_WORDS]
            np.add.reduce(piece.reshape(-1, _PAGE_WORDS), axis=1, out=sums[first:last])
            if into is not None:
                into[first * _PAGE_WORDS : last * _PAGE_WORDS] = piece

    if num_threads == 1:
        add(range(0, num_pages, _PIECE_PAGES))
    else:
        bounds = [num_pages * i // num_threads for i in range(num_threads + 1)]
        parts = [range(*ends, _PIECE_PAGES) for ends in itertools.pairwise(bounds)]
        with ThreadPoolExecutor(num_threads) as pool:  # numpy does without the interpreter's lock
            list(pool.map(add, parts))
    if into is not None:
        into[whole:] = words[whole:]
    return _hexdigest(weights.layout, sums, words[whole:])


def _hexdigest(
    layout: Sequence[TensorLayout], sums: NDArray[np.uint64], rest: NDArray[np.uint64]
) -> str:
    digest = hashlib.sha256(_layout_text(layout).encode())
    digest.update(sums.data)
    digest.update(np.add.reduce(rest, keepdims=True).data)
    return digest.hexdigest()


class PartwiseDigest:
    """``weights_digest`` for threads that read all of the buffer anyway, each its own parts."""

    def __init__(self, weights: WeightBuffer) -> None:
        self._layout = weights.layout
        self._words = np.ascontiguousarray(weights.data_B).view(np.uint64)
        self._sums = np.empty(len(self._words) // _PAGE_WORDS, np.uint64)

    def read(self, begin: int, end: int) -> None:
        """Read the pages that begin within these bytes; best just before they are used."""
        page_bytes = 8 * _PAGE_WORDS
        first, last = -(-begin // page_bytes), min(-(-end // page_bytes), len(self._sums))
        if last > first:
            pages = self._words[first * _PAGE_WORDS : last * _PAGE_WORDS]
            np.add.reduce(pages.reshape(-1, _PAGE_WORDS), axis=1, out=self._sums[first:last])

    def hexdigest(self) -> str:
        """Once every byte was read."""
        return _hexdigest(self._layout, self._sums, self._words[len(self._sums) * _PAGE_WORDS :])


def _layout_text(layout: Sequence[TensorLayout]) -> str:
    # dataclasses.asdict would take ten times as long, a millisecond for a hundred tensors.
    return json.dumps(
        [
            {
                "name": at.name,
                "dtype": at.dtype,
                "shape": at.shape,
                "offset": at.offset,
                "num_bytes": at.num_bytes,
            }
            for at in layout
        ]
    )


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
