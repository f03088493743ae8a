"""A policy's weights as bytes that any process can hold, and back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from records import PackedTensor, PackedWeights

_FLOAT32_ONLY = "head"
"""Parameters with this word in their dotted name stay float32: logits are computed in it."""


def pack_weights(module: nn.Module, *, dtype: torch.dtype) -> dict[str, PackedTensor]:
    """Copy all parameters, cast to the dtype that samplers compute in."""
    packed = {}
    for name, parameter in module.named_parameters():
        wanted = torch.float32 if is_float32_only(name) else dtype
        # A clone even where nothing is cast: the learner goes on writing to its own.
        value = parameter.detach().to("cpu", wanted, copy=True).contiguous()
        packed[name] = PackedTensor(
            data_B=value.flatten().view(torch.uint8).numpy(),
            dtype=str(wanted).removeprefix("torch."),
            shape=tuple(parameter.shape),
        )
    return packed


def unpack_tensor(packed: PackedTensor) -> Tensor:
    """A tensor over the same bytes; treat it as read-only."""
    data = torch.from_numpy(packed.data_B)
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
