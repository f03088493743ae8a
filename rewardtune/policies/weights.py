"""A policy's weights as bytes that any process can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewardtune.records import PackedTensor, PackedWeights, TensorLayout, WeightBuffer
from rewardtune.records.weights import (
    PartwiseDigest,
    UncheckedWeights,
    buffer_bytes,
    clear_gaps,
    lay_out,
    num_threads_of,
    weights_digest,
)

_FLOAT32_ONLY = "head"
"""Parameters with this word in their dotted name stay float32: logits are computed in it."""


def pack_weights(
    module: nn.Module, *, dtype: torch.dtype, into: NDArray[np.uint8] | None = None
) -> WeightBuffer:
    """Copy all parameters, cast to the dtype that samplers compute in, into one buffer.

    Args:
        into: memory to use again, ``packed_bytes`` or more; nobody may still read what it held.
            Writing to fresh memory takes two to three times as long.

    Raises:
        ValueError: ``into`` is too small.
    """
    layout = _layout(module, dtype)
    data_B = np.empty(buffer_bytes(layout), np.uint8) if into is None else into
    packed = WeightBuffer(data_B, layout)
    clear_gaps(packed.data_B, layout)
    for name, parameter in module.named_parameters():
        unpack_tensor(packed[name]).copy_(parameter.detach())
    return packed


def packed_bytes(module: nn.Module, *, dtype: torch.dtype) -> int:
    """Size of what ``pack_weights`` gives."""
    return buffer_bytes(_layout(module, dtype))


def unpack_tensor(packed: PackedTensor) -> Tensor:
    """A tensor over the same bytes; treat it as read-only."""
    return _tensor(_bytes(packed.data_B), packed.dtype, packed.shape)


@torch.no_grad()
def load_weights(module: nn.Module, weights: PackedWeights) -> None:
    """Copy weights into a module's parameters, which keep their dtype and device.

    Of ``UncheckedWeights`` each tensor is read for the digest just before it is copied, which so
    reads it from the cache. If they are damaged, what they say is raised, and what the module holds
    is of no use.

    Raises:
        ValueError: names or shapes differ; nothing was changed.
    """
    parameters = dict(module.named_parameters())
    if isinstance(weights, UncheckedWeights):
        _load_unchecked(parameters, weights)
        return
    for name, tensor in _fitting(parameters, weights).items():
        parameters[name].copy_(tensor)


def is_float32_only(name: str) -> bool:
    """Whether a parameter is computed in float32 whatever the policy's dtype."""
    return _FLOAT32_ONLY in name.split(".")


def _load_unchecked(parameters: Mapping[str, nn.Parameter], weights: UncheckedWeights) -> None:
    try:
        tensors = _fitting(parameters, weights)
    except (ValueError, RuntimeError, AttributeError):
        weights.require(weights_digest(weights))  # a damaged layout is to be named as such
        raise
    if not weights.layout:
        weights.require(weights_digest(weights))
        return
    digest = PartwiseDigest(weights)
    order = sorted(weights.layout, key=lambda at: at.offset)
    begins = [0, *(at.offset for at in order[1:])]
    ends = [*begins[1:], len(weights.data_B)]
    num_threads = num_threads_of(weights)

    def copy(thread: int) -> None:
        for at, begin, end in zip(order, begins, ends, strict=False):
            if begin * num_threads // (len(weights.data_B) + 1) == thread:
                digest.read(begin, end)
                # Detached, because only the calling thread computes without gradients.
                parameters[at.name].detach().copy_(tensors[at.name])

    if num_threads == 1:
        copy(0)
    else:
        with ThreadPoolExecutor(num_threads) as pool:  # torch copies without the lock
            list(pool.map(copy, range(num_threads)))
    weights.require(digest.hexdigest())


def _fitting(parameters: Mapping[str, nn.Parameter], weights: PackedWeights) -> dict[str, Tensor]:
    if odd := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"weights and module differ in {len(odd)} parameters, first '{odd[0]}'")
    # All tensors first: between copies, which empty the cache, the same calls take twice as long.
    tensors = _unpacked(weights)
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            raise ValueError(
                f"parameter '{name}' should be {list(parameter.shape)} but the weights hold "
                f"{list(tensors[name].shape)}"
            )
    return tensors


def _unpacked(weights: PackedWeights) -> dict[str, Tensor]:
    if not isinstance(weights, WeightBuffer):
        return {name: unpack_tensor(packed) for name, packed in weights.items()}
    data = _bytes(weights.data_B)  # once, not for every tensor: half the time
    return {
        at.name: _tensor(data[at.offset : at.offset + at.num_bytes], at.dtype, at.shape)
        for at in weights.layout
    }


def _tensor(data: Tensor, dtype: str, shape: tuple[int, ...]) -> Tensor:
    return data.view(getattr(torch, dtype)).view(shape)


def _bytes(data_B: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.asarray(_Unguarded(data_B)))


def _layout(module: nn.Module, dtype: torch.dtype) -> tuple[TensorLayout, ...]:
    wanted = [
        (name, torch.float32 if is_float32_only(name) else dtype, tuple(parameter.shape))
        for name, parameter in module.named_parameters()
    ]
    return lay_out(
        ((name, _name(each), shape) for name, each, shape in wanted),
        item_bytes={_name(each): each.itemsize for _, each, _ in wanted},
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Unguarded:
    """The memory of an array without its read-only flag, which torch knows only as a warning."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self._owner = array
        interface: dict[str, Any] = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
