"""Attention of each sequence's newest token to the tokens before it.

``TokenPast`` keeps their keys and values, for as many tokens as it is built for, and allocates
nothing more. The CPU has its own: with one query per sequence there is no matrix product to
speak of, and torch's attention takes five times as long as reading the cache once.

Axes: N sequences, T tokens, D width = H heads of E, B blocks of L sequences (lanes).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, Protocol, TypeVar, cast

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_NUM_LANES = 64
"""Sequences of a block: their part of one head's keys stays in the first-level cache."""


class TokenPast(Protocol):
    def attend(self, fused_NX: Tensor, position: int) -> Tensor:
        """Keep the tokens' keys and values, and mix the values up to ``position``: [N, D].

        Args:
            fused_NX: queries, keys and values [N, 3*D]; the score's 1/sqrt(E) is in the queries.
            position: of these tokens; earlier ones have been attended before.
        """
        ...


def token_past(*, num_sequences: int, length: int, num_heads: int, like_D: Tensor) -> TokenPast:
    """An empty past on the device and in the dtype of ``like_D``, whose last axis is the width."""
    kind = CpuTokenPast if like_D.device.type == "cpu" else DeviceTokenPast
    return kind(num_sequences=num_sequences, length=length, num_heads=num_heads, like_D=like_D)


class DeviceTokenPast:
    """On any device, by torch's attention."""

    def __init__(self, *, num_sequences: int, length: int, num_heads: int, like_D: Tensor) -> None:
        head_width = like_D.shape[-1] // num_heads
        self._cache_2NHTE = like_D.new_zeros(2, num_sequences, num_heads, length, head_width)

    def attend(self, fused_NX: Tensor, position: int) -> Tensor:
        _, num_sequences, num_heads, _, head_width = self._cache_2NHTE.shape
        fused_3NHE = fused_NX.view(num_sequences, 3, num_heads, head_width).transpose(0, 1)
        self._cache_2NHTE[:, :, :, position] = fused_3NHE[1:]
        keys, values = self._cache_2NHTE[:, :, :, : position + 1]
        mixed = F.scaled_dot_product_attention(fused_3NHE[0, :, :, None], keys, values, scale=1.0)
        return mixed.reshape(num_sequences, -1)


class CpuTokenPast:
    """In one pass over a cache that holds sequences side by side; float32 whatever the dtype."""

    def __init__(self, *, num_sequences: int, length: int, num_heads: int, like_D: Tensor) -> None:
        width = like_D.shape[-1]
        num_blocks = -(-num_sequences // _NUM_LANES)
        # Whole vectors of 8 lanes; those beyond the last sequence hold zeros.
        num_lanes = 8 * -(-num_sequences // (8 * num_blocks))
        # By numpy, which asks the system for large pages.
        self._cache_B2HTEL = np.zeros(
            (num_blocks, 2, num_heads, length, width // num_heads, num_lanes), np.float32
        )
        self._mixed_ND = torch.empty(num_sequences, width)
        self._bounds = _shares(num_blocks, torch.get_num_threads())

    def attend(self, fused_NX: Tensor, position: int) -> Tensor:
        arrays = (fused_NX.float().numpy(), self._cache_B2HTEL, self._mixed_ND.numpy(), position)
        (first, last), *shares = self._bounds
        others = [_threads(len(shares)).submit(_has_attended, *arrays, *share) for share in shares]
        own = _has_attended(*arrays, first, last)
        if not all([own, *(other.result() for other in others)]):
            self._mixed_ND.fill_(torch.nan)
        return self._mixed_ND.to(fused_NX.dtype)


def _has_attended(
    fused_NX: NDArray[np.float32],
    cache_B2HTEL: NDArray[np.float32],
    mixed_ND: NDArray[np.float32],
    position: int,
    first_block: int,
    last_block: int,
) -> bool:
    """False where scores are not finite: their weights add up to 0, which it divides by."""
    try:
        _attend(fused_NX, cache_B2HTEL, mixed_ND, position, first_block, last_block)
    except ZeroDivisionError:
        return False
    return True


def _shares(num_blocks: int, num_threads: int) -> list[tuple[int, int]]:
    """First and last block of each thread's share; no share is empty."""
    num_shares = min(num_blocks, num_threads)
    edges = [num_blocks * i // num_shares for i in range(num_shares + 1)]
    return list(pairwise(edges))


@cache
def _threads(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="attend")


Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(**options: Any) -> Callable[[Function], Function]:
    def compile_(function: Function) -> Function:
        settings = {"fastmath": True, "nogil": True, **options}
        try:
            return cast(Function, numba.njit(function, cache=True, **settings))
        except RuntimeError:
            # No writable folder for numba's cache: compile in every process instead.
            return cast(Function, numba.njit(function, **settings))

    return compile_


@_compiled(inline="always")
def _exp(x: np.float32) -> Any:
    """e^x for x <= 0, as plain arithmetic that the compiler can do for many lanes at once."""
    power = max(x, np.float32(-87.0)) * np.float32(1.4426950408889634)
    whole = np.floor(power + np.float32(0.5))
    part = power - whole
    # 2^part on [-0.5, 0.5], relative error 1e-7.
    value = np.float32(1.535336188319500e-4)
    value = value * part + np.float32(1.339887440266574e-3)
    value = value * part + np.float32(9.618437357674640e-3)
    value = value * part + np.float32(5.550332471162809e-2)
    value = value * part + np.float32(2.402264791363012e-1)
    value = value * part + np.float32(6.931472028550421e-1)
    value = value * part + np.float32(1.0)
    exponent = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return value * exponent.view(np.float32)


@_compiled()
def _attend(
    fused_NX: NDArray[np.float32],
    cache_B2HTEL: NDArray[np.float32],
    mixed_ND: NDArray[np.float32],
    position: int,
    first_block: int,
    last_block: int,
) -> None:
    num_heads, length, head_width, num_lanes = cache_B2HTEL.shape[2:]
    num_sequences, width = mixed_ND.shape
    query_EL = np.zeros((head_width, num_lanes), np.float32)
    weight_TL = np.empty((length, num_lanes), np.float32)
    mixed_EL = np.empty((head_width, num_lanes), np.float32)
    for b in range(first_block, last_block):
        start = b * num_lanes
        stop = min(start + num_lanes, num_sequences)
        for h in range(num_heads):
            low = h * head_width
            key_TEL, value_TEL = cache_B2HTEL[b, 0, h], cache_B2HTEL[b, 1, h]
            _to_lanes(fused_NX[start:stop, low:], query_EL)
            _to_lanes(fused_NX[start:stop, width + low :], key_TEL[position])
            _to_lanes(fused_NX[start:stop, 2 * width + low :], value_TEL[position])
            _scores(query_EL, key_TEL, weight_TL, position + 1)
            _softmax(weight_TL, position + 1)
            _mix(weight_TL, value_TEL, mixed_EL, position + 1)
            for i in range(stop - start):
                for e in range(head_width):
                    mixed_ND[start + i, low + e] = mixed_EL[e, i]


@_compiled(inline="always")
def _to_lanes(row_NE: NDArray[np.float32], lane_EL: NDArray[np.float32]) -> None:
    for e in range(lane_EL.shape[0]):
        for i in range(row_NE.shape[0]):
            lane_EL[e, i] = row_NE[i, e]


@_compiled(inline="always")
def _scores(
    query_EL: NDArray[np.float32],
    key_TEL: NDArray[np.float32],
    score_TL: NDArray[np.float32],
    num_tokens: int,
) -> None:
    head_width, num_lanes = query_EL.shape
    for t in range(num_tokens):
        for i in range(num_lanes):
            score_TL[t, i] = 0.0
        # By fours, so that a score is loaded and stored less often.
        for e in range(0, head_width - 3, 4):
            for i in range(num_lanes):
                score_TL[t, i] += (
                    query_EL[e, i] * key_TEL[t, e, i]
                    + query_EL[e + 1, i] * key_TEL[t, e + 1, i]
                    + query_EL[e + 2, i] * key_TEL[t, e + 2, i]
                    + query_EL[e + 3, i] * key_TEL[t, e + 3, i]
                )
        for e in range(head_width - head_width % 4, head_width):
            for i in range(num_lanes):
                score_TL[t, i] += query_EL[e, i] * key_TEL[t, e, i]


@_compiled(inline="always")
def _softmax(weight_TL: NDArray[np.float32], num_tokens: int) -> None:
    num_lanes = weight_TL.shape[1]
    top_L = weight_TL[0].copy()
    total_L = np.zeros(num_lanes, np.float32)
    for t in range(1, num_tokens):
        for i in range(num_lanes):
            top_L[i] = max(top_L[i], weight_TL[t, i])
    for t in range(num_tokens):
        for i in range(num_lanes):
            weight_TL[t, i] = _exp(weight_TL[t, i] - top_L[i])
            total_L[i] += weight_TL[t, i]
    for i in range(num_lanes):
        total_L[i] = np.float32(1.0) / total_L[i]
    for t in range(num_tokens):
        for i in range(num_lanes):
            weight_TL[t, i] *= total_L[i]


@_compiled(inline="always")
def _mix(
    weight_TL: NDArray[np.float32],
    value_TEL: NDArray[np.float32],
    mixed_EL: NDArray[np.float32],
    num_tokens: int,
) -> None:
    head_width, num_lanes = mixed_EL.shape
    mixed_EL[:] = 0.0
    for t in range(0, num_tokens - 3, 4):
        for e in range(head_width):
            for i in range(num_lanes):
                mixed_EL[e, i] += (
                    weight_TL[t, i] * value_TEL[t, e, i]
                    + weight_TL[t + 1, i] * value_TEL[t + 1, e, i]
                    + weight_TL[t + 2, i] * value_TEL[t + 2, e, i]
                    + weight_TL[t + 3, i] * value_TEL[t + 3, e, i]
                )
    for t in range(num_tokens - num_tokens % 4, num_tokens):
        for e in range(head_width):
            for i in range(num_lanes):
                mixed_EL[e, i] += weight_TL[t, i] * value_TEL[t, e, i]
