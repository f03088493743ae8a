"""Multi-head attention with per-head kernels.

Axes: N sequences, T positions of a sequence, G groups of S sequences that share a context,
P positions of the context, D width, H heads, E width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers.initialize import lecun_normal_, xavier_uniform_


class HeadProjection(nn.Module):
    """Kernel [D, H, E] and, in encoders, bias [H, E]."""

    def __init__(self, width: int, num_heads: int, *, has_bias: bool) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(width, num_heads, width // num_heads))
        self.bias = nn.Parameter(torch.zeros(num_heads, width // num_heads)) if has_bias else None
        if has_bias:
            xavier_uniform_(self.kernel, fan_in=width, fan_out=width)
        else:
            lecun_normal_(self.kernel, fan_in=width)


class OutputProjection(nn.Module):
    """Kernel [H, E, D] and, in encoders, bias [D]."""

    def __init__(self, width: int, num_heads: int, *, has_bias: bool) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(num_heads, width // num_heads, width))
        self.bias = nn.Parameter(torch.zeros(width)) if has_bias else None
        if has_bias:
            xavier_uniform_(self.kernel, fan_in=width, fan_out=width)
        else:
            lecun_normal_(self.kernel, fan_in=width)

    def forward(self, x_NTD: Tensor) -> Tensor:
        return F.linear(x_NTD, self.kernel.flatten(0, 1).t(), self.bias)


def fused_projection(*projections: HeadProjection) -> tuple[Tensor, Tensor | None]:
    """Kernel [D, k*H*E] and bias of several projections, so that one product serves them all."""
    kernel = torch.cat([p.kernel.flatten(1) for p in projections], dim=1)
    biases = [p.bias for p in projections if p.bias is not None]
    return kernel, torch.cat([bias.flatten() for bias in biases]) if biases else None


def split_heads(x_NTD: Tensor, num_heads: int) -> Tensor:
    """[N, T, H*E] to [N, H, T, E]."""
    split: Tensor = x_NTD.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return split


def _merge_heads(x_NHTE: Tensor) -> Tensor:
    return x_NHTE.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Each position attends to all of its sequence, or to itself and earlier ones if causal."""

    def __init__(self, width: int, num_heads: int, *, has_bias: bool, is_causal: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.is_causal = is_causal
        self.query = HeadProjection(width, num_heads, has_bias=has_bias)
        self.key = HeadProjection(width, num_heads, has_bias=has_bias)
        self.value = HeadProjection(width, num_heads, has_bias=has_bias)
        self.out = OutputProjection(width, num_heads, has_bias=has_bias)

    def forward(self, x_NTD: Tensor) -> Tensor:
        return self.keeping(x_NTD)[0]

    def keeping(self, x_NTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` gives, and the keys and values [N, H, T, E] of the positions."""
        kernel, bias = fused_projection(self.query, self.key, self.value)
        fused = F.linear(x_NTD, kernel.t(), bias)
        query, key, value = (split_heads(part, self.num_heads) for part in fused.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=self.is_causal)
        return self.out.forward(_merge_heads(mixed)), key, value


class CrossAttention(nn.Module):
    """Sequences attend to the context of their group; keys and values stand once per group."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = HeadProjection(width, num_heads, has_bias=False)
        self.key = HeadProjection(width, num_heads, has_bias=False)
        self.value = HeadProjection(width, num_heads, has_bias=False)
        self.out = OutputProjection(width, num_heads, has_bias=False)

    def forward(self, x_NTD: Tensor, context_GPD: Tensor) -> Tensor:
        """N = G*S sequences, those of a group next to each other."""
        return self.keeping(x_NTD, context_GPD)[0]

    def keeping(self, x_NTD: Tensor, context_GPD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``forward`` gives, and the keys and values [G, H, P, E] of the context."""
        num_groups = context_GPD.shape[0]
        # No mask: the queries of all of a group's sequences are one long list of queries.
        grouped = x_NTD.reshape(num_groups, -1, x_NTD.shape[-1])
        query = split_heads(F.linear(grouped, self.query.kernel.flatten(1).t()), self.num_heads)
        kernel, _ = fused_projection(self.key, self.value)
        key, value = (
            split_heads(part, self.num_heads)
            for part in F.linear(context_GPD, kernel.t()).chunk(2, dim=-1)
        )
        mixed = _merge_heads(F.scaled_dot_product_attention(query, key, value))
        return self.out.forward(mixed).reshape(x_NTD.shape), key, value


class AttentionRead(nn.Module):
    """Attention to keys and values that another layer made; no biases."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = HeadProjection(width, num_heads, has_bias=False)
        self.out = OutputProjection(width, num_heads, has_bias=False)

    def forward(
        self, x_NTD: Tensor, keys: Tensor, values: Tensor, *, sees: Tensor | None = None
    ) -> Tensor:
        """Keys and values [N, H, X, E], or [G, H, X, E] that groups of sequences share.

        Args:
            sees: [T, X], which of the X keys each position may see; None: all.
        """
        grouped = x_NTD.reshape(len(keys), -1, x_NTD.shape[-1])
        query = split_heads(F.linear(grouped, self.query.kernel.flatten(1).t()), self.num_heads)
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=sees)
        return self.out.forward(_merge_heads(mixed)).reshape(x_NTD.shape)
