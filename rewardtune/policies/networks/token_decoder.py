"""An autoregressive decoder of tokens that attends to an encoded image.

Axes: G groups (images), N sequences, T tokens, P patches, D width, V vocabulary; R steps of E
tokens where there is a readout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers import DecoderBlock, LayerNorm
from rewardtune.layers.initialize import level_sinusoids
from rewardtune.layers.transformer import run_block
from rewardtune.policies.networks.readout import Readout
from rewardtune.policies.networks.token_head import TokenHead
from rewardtune.policies.networks.vit import EncoderDecoderConfig, position_embedding


class TokenDecoder(nn.Module):
    """Token sequences and encoded images to the logits of each next token."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Parameter(torch.empty(config.vocab_size, config.width).normal_())
        self.position_embedding = position_embedding(config, rows=1, columns=config.sequence_length)
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.num_heads, config.mlp_width)
            for _ in range(config.decoder_depth)
        )
        self.norm = LayerNorm(config.width)
        self.head = TokenHead(config.width, config.vocab_size)
        self.readout = None if config.readout_every is None else Readout(config)

    @torch.no_grad()
    def start_levels(self, levels: Sequence[range]) -> None:
        """Initial values for runs of tokens that stand for evenly spaced values."""
        for run in levels:
            rows_LD = level_sinusoids(len(run), self.token_embedding.shape[1])
            self.token_embedding[run.start : run.stop] = rows_LD
        self.head.start_levels(levels)

    def forward(self, tokens_NT: Tensor, context_GPD: Tensor, *, recompute: bool) -> Tensor:
        """Teacher forcing: logits[t] [N, T, V] have seen tokens before t and predict tokens[t]."""
        if self.readout is not None:
            return self._with_readout(self.readout, tokens_NT, context_GPD, recompute=recompute)
        x_NTD = self._embedded(tokens_NT)
        for block in self.blocks:
            x_NTD = run_block(block, x_NTD, context_GPD, recompute=recompute)
        logits_NTV: Tensor = self.head.forward(self.norm.forward(x_NTD))
        return logits_NTV

    def _with_readout(
        self, readout: Readout, tokens_NT: Tensor, context_GPD: Tensor, *, recompute: bool
    ) -> Tensor:
        length = tokens_NT.shape[1]
        whole_steps_NT = F.pad(tokens_NT, (0, -length % readout.every))
        embedded_NTD = x_NTD = self._embedded(whole_steps_NT)
        kept = []
        for block in self.blocks:
            assert isinstance(block, DecoderBlock)
            x_NTD, tensors = run_block(block.keeping, x_NTD, context_GPD, recompute=recompute)
            kept.append(tensors)
        # All but the last token of each step.
        drawn_NRED = self.norm.forward(x_NTD.unflatten(1, (-1, readout.every))[:, :, :-1])
        read_NRV = readout.forward(embedded_NTD, drawn_NRED, kept, recompute=recompute)
        logits_NREV = torch.cat([self.head.forward(drawn_NRED), read_NRV[:, :, None]], dim=2)
        return logits_NREV.flatten(1, 2)[:, :length]

    def _embedded(self, tokens_NT: Tensor) -> Tensor:
        # Token 0 is the start symbol as well as padding.
        inputs_NT = F.pad(tokens_NT[:, :-1], (1, 0))
        if self.readout is not None:
            inputs_NT = self.readout.seen(inputs_NT)
        x_NTD = F.embedding(inputs_NT, self.token_embedding)
        return x_NTD + self.position_embedding[:, : tokens_NT.shape[1]]
