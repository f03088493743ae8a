"""The decoder's blocks in bfloat16, arranged for speed on a processor; weights are copies.

Equal to ``layers.Encoder`` but for rounding. Queries, keys and values are one product; GELU and
the sum with what came before are part of the products before them; weights are packed
(``rewardtune/layers/prepared.py``).

Axes: N sequences, T patches, D width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardtune.layers.attention import fused_projection
from rewardtune.layers.dense import LAYER_NORM_EPSILON, LayerNorm
from rewardtune.layers.prepared import PreparedLinear
from rewardtune.layers.transformer import Encoder, EncoderBlock
from rewardtune.tasks.uvim.bfloat16_attention import attention

_ROWS_AT_A_TIME = 1024
"""Of a picture of 512 px; what stands between two products then stays in cache."""


class BFloat16Trunk:
    """Encoder blocks and the final normalisation: float32 [N, T, D] to float32 [N, T, D]."""

    def __init__(self, trunk: Encoder, *, batch: int, num_patches: int) -> None:
        """Copy the weights of ``trunk``, for calls with N = ``batch`` and T = ``num_patches``."""
        self._num_sequences = _sequences_at_a_time(batch, num_patches)
        num_rows = self._num_sequences * num_patches
        blocks = [block for block in trunk.blocks if isinstance(block, EncoderBlock)]
        self._blocks = [_Block(block, num_rows=num_rows) for block in blocks]
        self._norm = trunk.norm

    def __call__(self, x_NTD: Tensor) -> Tensor:
        return torch.cat([self._states(part) for part in x_NTD.split(self._num_sequences)])

    def _states(self, x_NTD: Tensor) -> Tensor:
        x_NTD = x_NTD.to(torch.bfloat16)
        for block in self._blocks:
            x_NTD = block(x_NTD)
        return self._norm.forward(x_NTD.float())


def _sequences_at_a_time(batch: int, num_patches: int) -> int:
    """As many as fit, in parts of one size: bits may depend on how many rows a product has."""
    fitting = max(1, _ROWS_AT_A_TIME // num_patches)
    return max(n for n in range(1, min(batch, fitting) + 1) if batch % n == 0)


class _Block:
    def __init__(self, block: EncoderBlock, *, num_rows: int) -> None:
        attention, mlp = block.attention, block.mlp
        self._num_heads = attention.num_heads
        self._norm_0, self._norm_1 = _Norm(block.norm_0), _Norm(block.norm_1)
        kernel, bias = fused_projection(attention.query, attention.key, attention.value)
        width = len(kernel)
        scale = torch.ones(3 * width)
        scale[:width] = 1 / math.sqrt(width // attention.num_heads)
        out = attention.out

        def prepared(kernel: Tensor, bias: Tensor | None) -> PreparedLinear:
            return PreparedLinear(kernel, bias, dtype=torch.bfloat16, num_rows=num_rows)

        self._fused = prepared(kernel * scale, None if bias is None else bias * scale)
        self._out = prepared(out.kernel.flatten(0, 1), out.bias)
        self._up = prepared(mlp.dense_0.kernel, mlp.dense_0.bias)
        self._down = prepared(mlp.dense_1.kernel, mlp.dense_1.bias)

    def __call__(self, x_NTD: Tensor) -> Tensor:
        fused_NTX = self._fused.apply(self._norm_0(x_NTD))
        mixed_NTD = attention(fused_NTX, num_heads=self._num_heads)
        x_NTD = self._out.apply_added(mixed_NTD, x_NTD)
        return self._down.apply_added(self._up.apply_gelu(self._norm_1(x_NTD)), x_NTD)


class _Norm:
    def __init__(self, norm: LayerNorm) -> None:
        self._scale_D = norm.scale.detach().to(torch.bfloat16)
        self._bias_D = norm.bias.detach().to(torch.bfloat16)

    def __call__(self, x_NTD: Tensor) -> Tensor:
        shape = self._scale_D.shape
        return F.layer_norm(x_NTD, shape, self._scale_D, self._bias_D, LAYER_NORM_EPSILON)
