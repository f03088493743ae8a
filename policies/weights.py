"""A policy's weights as bytes that any process can hold, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from records import PackedTensor, PackedWeights, TensorLayout, WeightBuffer
from records.weights import buffer_bytes, clear_gaps, lay_out

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
    data = torch.from_numpy(np.asarray(_Unguarded(packed.data_B)))
    return data.view(getattr(torch, packed.dtype)).reshape(packed.shape)


@torch.no_grad()
def load_weights(module: nn.Module, weights: PackedWeights) -> None:
    """Copy weights into a module's parameters, which keep their dtype and device.

    Raises:
        ValueError: names or shapes differ; nothing was changed.
    """
    parameters = dict(module.named_parameters())
    if odd := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"weights and module differ in {len(odd)} parameters, first '{odd[0]}'")
    for name, parameter in parameters.items():
        if weights[name].shape != tuple(parameter.shape):
            raise ValueError(
                f"parameter '{name}' should be {list(parameter.shape)} but the weights hold "
                f"{list(weights[name].shape)}"
            )
    for name, parameter in parameters.items():
        parameter.copy_(unpack_tensor(weights[name]))


def is_float32_only(name: str) -> bool:
    """Whether a parameter is computed in float32 whatever the policy's dtype."""
    return _FLOAT32_ONLY in name.split(".")


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
