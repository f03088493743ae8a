"""Weights between processes: bytes with dtype and shape beside, for no numpy type fits bfloat16.

Axes: B bytes, G groups, S sequences, T tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from records.group import Published

_ALIGNMENT = 64
"""Where tensors may begin: a cache line."""
_PAGE_WORDS = 512
"""Words of 8 bytes that are summed to one for the digest: 4 KiB."""


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
    words = np.ascontiguousarray(weights.data_B).view(np.uint64)
    whole = len(words) // _PAGE_WORDS * _PAGE_WORDS
    pages = words[:whole].reshape(-1, _PAGE_WORDS)
    digest = hashlib.sha256(json.dumps([asdict(at) for at in weights.layout]).encode())
    digest.update(_page_sums(pages, num_threads=num_threads).data)
    digest.update(np.add.reduce(words[whole:], keepdims=True).data)
    return digest.hexdigest()


def _page_sums(pages: NDArray[np.uint64], *, num_threads: int) -> NDArray[np.uint64]:
    if num_threads == 1:
        return np.asarray(np.add.reduce(pages, axis=1))
    parts = np.array_split(pages, num_threads)
    with ThreadPoolExecutor(num_threads) as pool:  # numpy adds without the interpreter's lock
        return np.concatenate(list(pool.map(lambda part: np.add.reduce(part, axis=1), parts)))


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
