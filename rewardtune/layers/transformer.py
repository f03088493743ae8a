"""Pre-norm transformer blocks (big_vision models/vit.py, models/proj/uvim/vtt.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewardtune.layers.attention import CrossAttention, SelfAttention
from rewardtune.layers.dense import Dense, LayerNorm

Kept: TypeAlias = tuple[Tensor, ...]
"""Of a decoder block: keys and values [N, H, T, E] of the tokens and [G, H, P, E] of the image."""

Result = TypeVar("Result")


class Mlp(nn.Module):
    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.dense_0 = Dense(width, hidden_width)
        self.dense_1 = Dense(hidden_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_1.forward(F.gelu(self.dense_0.forward(x), approximate="tanh"))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm_0 = LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, has_bias=True, is_causal=False)
        self.norm_1 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x_NTD: Tensor) -> Tensor:
        x_NTD = x_NTD + self.attention.forward(self.norm_0.forward(x_NTD))
        return x_NTD + self.mlp.forward(self.norm_1.forward(x_NTD))


class Encoder(nn.Module):
    """Encoder blocks and the final normalisation: [N, T, D] to [N, T, D]."""

    def __init__(self, *, depth: int, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads, mlp_width) for _ in range(depth))
        self.norm = LayerNorm(width)

    def forward(self, x_NTD: Tensor, *, recompute: bool = False) -> Tensor:
        for block in self.blocks:
            x_NTD = run_block(block, x_NTD, recompute=recompute)
        return self.norm.forward(x_NTD)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention to the image, MLP; no biases in either attention."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm_0 = LayerNorm(width)
        self.self_attention = SelfAttention(width, num_heads, has_bias=False, is_causal=True)
        self.norm_1 = LayerNorm(width)
        self.cross_attention = CrossAttention(width, num_heads)
        self.norm_2 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x_NTD: Tensor, context_GPD: Tensor) -> Tensor:
        return self.keeping(x_NTD, context_GPD)[0]

    def keeping(self, x_NTD: Tensor, context_GPD: Tensor) -> tuple[Tensor, Kept]:
        """What ``forward`` gives, and the keys and values of the tokens and of the context."""
        own, *past = self.self_attention.keeping(self.norm_0.forward(x_NTD))
        x_NTD = x_NTD + own
        read, *image = self.cross_attention.keeping(self.norm_1.forward(x_NTD), context_GPD)
        x_NTD = x_NTD + read
        return x_NTD + self.mlp.forward(self.norm_2.forward(x_NTD)), (*past, *image)


def run_block(block: Callable[..., Result], *inputs: Tensor, recompute: bool) -> Result:
    """Run a block, keeping only its inputs for the backward pass if ``recompute``."""
    if not recompute:
        return block(*inputs)
    result: Result = checkpoint(block, *inputs, use_reentrant=False)
    return result
