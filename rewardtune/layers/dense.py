"""Affine maps and layer normalisation with kernels stored [in, out]."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers.initialize import xavier_uniform_

LAYER_NORM_EPSILON = 1e-6


class Dense(nn.Module):
    """[..., in] to [..., out]; a head starts at zero, anything else Xavier-uniform."""

    def __init__(self, features_in: int, features_out: int, *, is_head: bool = False) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(features_in, features_out))
        self.bias = nn.Parameter(torch.zeros(features_out))
        if not is_head:
            xavier_uniform_(self.kernel, fan_in=features_in, fan_out=features_out)
            nn.init.normal_(self.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kernel.t(), self.bias)


class LayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.scale.shape, self.scale, self.bias, LAYER_NORM_EPSILON)
