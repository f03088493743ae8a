"""Arrays that hold a number which is none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first with a NaN or an infinity in it; None if there is none."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None
