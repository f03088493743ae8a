"""Initial values as big_vision draws them (models/vit.py, models/proj/uvim/vtt.py)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
