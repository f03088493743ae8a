"""What no implementation of a network can go below here: its bare products and cache reads.

The same shapes and dtype as in the real thing, each weight its own memory, in the real order,
and nothing between them. Dense products are timed in the faster form of torch's plain one and
oneDNN's packed one, whatever the real thing uses.

Axes: N rows, D features in, X features out, B matrices of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from rewardtune.policies.kinds.encoder_decoder import EncoderDecoderConfig


@dataclass(frozen=True, slots=True)
class Product:
    """[B, N, D] @ [B, D, X]; with B = 1 the right side is a weight."""

    rows: int
    features_in: int
    features_out: int
    batch: int = 1
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Read:
    """Reading so much memory once, in one go."""

    num_bytes: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Pieces of work in their order, and how often all of it is done."""

    pieces: Sequence[Product | Read]
    repeats: int = 1


def encoding(config: EncoderDecoderConfig, *, num_images: int, dtype: torch.dtype) -> Stage:
    """Images to the keys and values of every decoder block."""
    width, heads, head_width = config.width, config.num_heads, config.width // config.num_heads
    patches = config.grid_size**2
    rows, batch = num_images * patches, num_images * heads
    block: list[Product | Read] = [
        Product(rows, width, 3 * width, dtype=dtype),
        Product(patches, head_width, patches, batch, dtype),
        Product(patches, patches, head_width, batch, dtype),
        Product(rows, width, width, dtype=dtype),
        Product(rows, width, config.mlp_width, dtype=dtype),
        Product(rows, config.mlp_width, width, dtype=dtype),
    ]
    patch = Product(rows, config.patch_size**2 * 3, width, dtype=dtype)
    context = Product(rows, width, 2 * width, dtype=dtype)
    return Stage([patch, *block * config.encoder_depth, *[context] * config.decoder_depth])


def drawing(
    config: EncoderDecoderConfig, *, num_images: int, num_samples: int, dtype: torch.dtype
) -> Stage:
    """All steps of drawing sequences with caches; each as the middle one, which is the mean."""
    width, heads, head_width = config.width, config.num_heads, config.width // config.num_heads
    patches, rows, batch = config.grid_size**2, num_images * num_samples, num_images * heads
    mean_tokens = (config.sequence_length + 1) / 2
    block: list[Product | Read] = [
        Product(rows, width, 3 * width, dtype=dtype),
        Read(int(2 * rows * mean_tokens * width * dtype.itemsize)),
        Product(rows, width, width, dtype=dtype),
        Product(rows, width, width, dtype=dtype),
        Product(num_samples, head_width, patches, batch, dtype),
        Product(num_samples, patches, head_width, batch, dtype),
        Product(rows, width, width, dtype=dtype),
        Product(rows, width, config.mlp_width, dtype=dtype),
        Product(rows, config.mlp_width, width, dtype=dtype),
    ]
    head = Product(rows, width, config.vocab_size)
    return Stage([*block * config.decoder_depth, head], repeats=config.sequence_length)


def training(config: EncoderDecoderConfig, *, num_images: int, num_samples: int) -> Stage:
    """Teacher forcing in float32: of each product forward, two backward."""
    width, heads, head_width = config.width, config.num_heads, config.width // config.num_heads
    patches, length = config.grid_size**2, config.sequence_length
    sequences, batch = num_images * num_samples, num_images * heads
    rows, queries = sequences * length, num_samples * length
    block: list[Product | Read] = [
        Product(rows, width, 3 * width),
        Product(length, head_width, length, sequences * heads),
        Product(length, length, head_width, sequences * heads),
        *[Product(rows, width, width)] * 3,
        Product(queries, head_width, patches, batch),
        Product(queries, patches, head_width, batch),
        Product(rows, width, config.mlp_width),
        Product(rows, config.mlp_width, width),
    ]
    forward: list[Product | Read] = [
        *encoding(config, num_images=num_images, dtype=torch.float32).pieces,
        *block * config.decoder_depth,
        Product(rows, width, config.vocab_size),
    ]
    pieces: list[Product | Read] = []
    for product in forward:
        assert isinstance(product, Product)
        n, d, x = product.rows, product.features_in, product.features_out
        pieces += [product, Product(n, x, d, product.batch), Product(d, n, x, product.batch)]
    return Stage(pieces)


def floor(*stages: Stage, max_repeats: int = 16) -> Callable[[], float]:
    """A function that does the work and returns the seconds that all of it takes.

    A stage with more repeats is done ``max_repeats`` times and its time scaled.
    """
    prepared = [([_prepared(piece) for piece in s.pieces], s.repeats) for s in stages]

    def measure() -> float:
        total = 0.0
        for pieces, repeats in prepared:
            done = min(repeats, max_repeats)
            start = time.perf_counter()
            for _ in range(done):
                for piece in pieces:
                    piece()
            total += (time.perf_counter() - start) * repeats / done
        return total

    return measure


def _prepared(piece: Product | Read) -> Callable[[], object]:
    """The piece on memory of its own, in the fastest of several forms."""
    if isinstance(piece, Read):
        memory = torch.ones(max(1, piece.num_bytes // 4))
        return memory.sum
    left = torch.randn(piece.batch, piece.rows, piece.features_in).to(piece.dtype)
    right = torch.randn(piece.batch, piece.features_in, piece.features_out).to(piece.dtype)
    if piece.batch > 1:
        result = torch.empty(piece.batch, piece.rows, piece.features_out, dtype=piece.dtype)
        return lambda: torch.bmm(left, right, out=result)
    left, right = left[0], right[0]

    def plain() -> object:
        return torch.mm(left, right)

    if piece.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return plain
    packed_right = torch.ops.mkldnn._reorder_linear_weight(right.t().contiguous(), piece.rows)

    def packed() -> object:
        return torch.ops.mkldnn._linear_pointwise.default(left, packed_right, None, "none", [], "")

    return min(plain, packed, key=_seconds)


def _seconds(way: Callable[[], object]) -> float:
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        way()
        taken.append(time.perf_counter() - start)
    return min(taken)
