"""Initial values as big_vision draws them (models/vit.py, models/proj/uvim/vtt.py), or none."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# A normal cut at two standard deviations has this standard deviation; Flax divides by it.
_TRUNCATED_NORMAL_STD = 0.87962566103423978


@torch.no_grad()
def xavier_uniform_(kernel: Tensor, *, fan_in: int, fan_out: int) -> Tensor:
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return kernel.uniform_(-bound, bound)


@torch.no_grad()
def lecun_normal_(kernel: Tensor, *, fan_in: int) -> Tensor:
    std = math.sqrt(1.0 / fan_in) / _TRUNCATED_NORMAL_STD
    return torch.nn.init.trunc_normal_(kernel, std=std, a=-2 * std, b=2 * std)


def level_sinusoids(num_levels: int, width: int) -> Tensor:
    """Smooth rows [num_levels, width] for evenly spaced values: sines, then cosines.

    From half a cycle over the whole range to 24, in even ratios: two levels are the more alike the
    nearer they are, and a shift is the same rotation wherever it starts. Of an odd width the last
    cosine is cut.
    """
    at_L = torch.linspace(0.0, 1.0, num_levels)
    cycles_C = torch.logspace(math.log10(0.5), math.log10(24.0), (width + 1) // 2)
    angle_LC = 2 * math.pi * at_L[:, None] * cycles_C
    return torch.cat([angle_LC.sin(), angle_LC.cos()], dim=1)[:, :width]


@contextlib.contextmanager
def sizes_only() -> Iterator[None]:
    """Networks built here have shapes and no values, for somebody who has values for them.

    They lie on the meta device, and nothing fills them: values would cost seconds and random
    numbers, and on that device the first call that draws any loads torch's compiler, at a second
    of processor time in every process that reads a policy.
    """
    with torch.device("meta"), _NothingFilled():
        yield


class _NothingFilled(TorchFunctionMode):
    _FILLS = frozenset({"normal_", "uniform_", "trunc_normal_", "xavier_uniform_"})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in self._FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
