"""A second stream of a decoder, for the last token of every step of a sequence.

Where a sequence says after each object how good it is, that token asks for other things of the
network than the tokens that draw. A readout has blocks of its own for it. They start from the
decoder's embedding of the token before and from the states that drew the step's other tokens,
which hold how sure each was, and attend to the keys and values that the decoder's blocks have kept
of all tokens so far. Nothing attends to a readout, and no gradient passes from it to the decoder:
what it learns moves no other token's distribution. (The query stream of XLNet, Yang et al. 2019,
arXiv:1906.08237, reads in the same way, by shared weights.)

Axes: N sequences, T tokens, E tokens of a step, R = T // E steps, G groups, P patches, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rewardtune.layers import Dense, LayerNorm, Mlp
from rewardtune.layers.attention import AttentionRead
from rewardtune.layers.transformer import Kept, run_block
from rewardtune.policies.networks.token_head import TokenHead

if TYPE_CHECKING:
    from rewardtune.policies.networks.vit import EncoderDecoderConfig


class ReadoutBlock(nn.Module):
    """A ``DecoderBlock`` without keys and values: it reads another's."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm_0 = LayerNorm(width)
        self.self_attention = AttentionRead(width, num_heads)
        self.norm_1 = LayerNorm(width)
        self.cross_attention = AttentionRead(width, num_heads)
        self.norm_2 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, x_NRD: Tensor, sees_RT: Tensor, *kept: Tensor) -> Tensor:
        """``kept`` as ``DecoderBlock.keeping`` gives it."""
        past, image = kept[:2], kept[2:]
        x_NRD = x_NRD + self.self_attention.forward(self.norm_0.forward(x_NRD), *past, sees=sees_RT)
        x_NRD = x_NRD + self.cross_attention.forward(self.norm_1.forward(x_NRD), *image)
        return x_NRD + self.mlp.forward(self.norm_2.forward(x_NRD))


class Readout(nn.Module):
    """What a decoder has kept to logits of every E-th token."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        assert config.readout_every is not None
        self.every = config.readout_every
        self._seen_as = config.readout_seen_as
        self.drawn = Dense((self.every - 1) * config.width, config.width, is_head=True)
        self.blocks = nn.ModuleList(
            ReadoutBlock(config.width, config.num_heads, config.mlp_width)
            for _ in range(config.decoder_depth)
        )
        self.norm = LayerNorm(config.width)
        self.head = TokenHead(config.width, config.vocab_size)

    def seen(self, before_NT: Tensor, first_position: int = 0) -> Tensor:
        """What the decoder is given as the tokens before the positions from ``first_position``."""
        if self._seen_as is None:
            return before_NT
        is_read_NT = torch.zeros_like(before_NT, dtype=torch.bool)
        is_read_NT[:, -first_position % self.every :: self.every] = True
        return before_NT.masked_fill(is_read_NT & (before_NT > 0), self._seen_as)

    def forward(
        self,
        embedded_NTD: Tensor,
        drawn_NRED: Tensor,
        kept: Sequence[Kept],
        *,
        recompute: bool,
    ) -> Tensor:
        """Float32 logits [N, R, V].

        Args:
            embedded_NTD: what the decoder's first block was given.
            drawn_NRED: what its head was given at the E - 1 other tokens of each step.
            kept: by each of its blocks.
        """
        position_T = torch.arange(embedded_NTD.shape[1], device=embedded_NTD.device)
        sees_RT = position_T <= position_T[self.every - 1 :: self.every, None]
        x_NRD = embedded_NTD[:, self.every - 1 :: self.every].detach()
        x_NRD = x_NRD + self.drawn.forward(drawn_NRED.detach().flatten(2))
        for block, tensors in zip(self.blocks, kept, strict=True):
            detached = (tensor.detach() for tensor in tensors)
            x_NRD = run_block(block, x_NRD, sees_RT, *detached, recompute=recompute)
        logits_NRV: Tensor = self.head.forward(self.norm.forward(x_NRD))
        return logits_NRV
