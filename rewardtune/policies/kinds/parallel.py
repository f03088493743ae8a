"""A policy that draws all tokens at once, each position independently of the others.

In place of tokens its decoder is given one learned query per position, so an image has one set
of logits, whatever is drawn from them.

Axes: G groups (images), S sequences of a group, T tokens, P patches, D width, V vocabulary,
K queried token ids.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from rewardtune.layers import DecoderBlock, LayerNorm
from rewardtune.layers.transformer import run_block
from rewardtune.policies.draw import Decoding, draw_tokens, is_stop, tempered
from rewardtune.policies.encoding import encode_timed
from rewardtune.policies.networks.token_head import TokenHead
from rewardtune.policies.networks.vit import EncoderDecoderConfig, VitPolicy
from rewardtune.policies.policy import Samples, TokenLogProbs, TokenQueries


class QueryDecoder(nn.Module):
    """Encoded images to the state of every position."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        queries = torch.empty(1, config.sequence_length, config.width)
        self.queries = nn.Parameter(queries.normal_(std=1 / math.sqrt(config.width)))
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.num_heads, config.mlp_width)
            for _ in range(config.decoder_depth)
        )
        for block in self.blocks:
            # No position waits for another's token.
            block.self_attention.is_causal = False  # type: ignore[union-attr]
        self.norm = LayerNorm(config.width)
        self.head = TokenHead(config.width, config.vocab_size)

    def forward(self, context_GPD: Tensor, *, recompute: bool) -> Tensor:
        x_GTD = self.queries.expand(len(context_GPD), -1, -1)
        for block in self.blocks:
            x_GTD = run_block(block, x_GTD, context_GPD, recompute=recompute)
        return self.norm.forward(x_GTD)


class ParallelPolicy(VitPolicy):
    """An image to independent distributions over the tokens of a sequence; a ``Policy``."""

    kind: ClassVar[str] = "parallel"

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        if config.readout_every is not None:
            raise ValueError(
                f"readout_every = {config.readout_every} needs a decoder that draws token by "
                "token, which a policy of kind 'parallel' does not: leave it out"
            )
        self.decoder = QueryDecoder(config)

    def start_levels(self, levels: Sequence[range]) -> None:
        """See ``Policy.start_levels``."""
        self.decoder.head.start_levels(levels)

    def logits(self, context_GPD: Tensor, *, recompute: bool = False) -> Tensor:
        """Float32 [G, T, V], whatever the tokens."""
        state_GTD = self.decoder.forward(context_GPD, recompute=recompute)
        logits_GTV: Tensor = self.decoder.head.forward(state_GTD)
        return logits_GTV

    def log_prob(
        self,
        images_GHWC: Tensor,
        tokens_GST: Tensor,
        *,
        queries: TokenQueries | None = None,
        temperature: float = 1.0,
        recompute: bool = False,
    ) -> TokenLogProbs:
        """See ``Policy.log_prob``."""
        context_GPD = self.encode(images_GHWC, recompute=recompute)
        length = tokens_GST.shape[2]
        logits_GTV = self.logits(context_GPD, recompute=recompute)[:, :length]
        log_probs_GTV = tempered(logits_GTV, temperature).log_softmax(-1)
        drawn_GTS = log_probs_GTV.gather(-1, tokens_GST.transpose(1, 2))
        queried_GSPK = None
        if queries is not None:
            at_GPV = logits_GTV[:, queries.positions_P].log_softmax(-1)
            at_GPK = at_GPV[..., queries.token_ids_K]
            queried_GSPK = at_GPK[:, None].expand(-1, tokens_GST.shape[1], -1, -1)
        return TokenLogProbs(drawn_GST=drawn_GTS.transpose(1, 2), queried_GSPK=queried_GSPK)

    @torch.no_grad()
    def sample(
        self,
        images_GHWC: Tensor,
        uniforms_GST: Tensor,
        *,
        decoding: Decoding,
        probe_tokens: tuple[int, ...] = (),
        stop_tokens: tuple[int, ...] = (),
    ) -> Samples:
        """See ``Policy.sample``."""
        num_groups, num_samples, length = uniforms_GST.shape
        with torch.autocast(images_GHWC.device.type, enabled=False):
            encoded = encode_timed(self.encode, images_GHWC)
            logits_GTV = self.logits(encoded.context_GPD)[:, :length]
        # One rollout of all images at a time: the logits stand once, however many there are.
        rows_NV = logits_GTV.flatten(0, 1)
        tokens_GST = torch.stack(
            [
                draw_tokens(rows_NV, uniforms_GST[:, s].flatten(), decoding).view(num_groups, -1)
                for s in range(num_samples)
            ],
            dim=1,
        )
        log_probs_GTV = tempered(logits_GTV, decoding.temperature).log_softmax(dim=-1)
        log_probs_GST = log_probs_GTV.gather(-1, tokens_GST.transpose(1, 2)).transpose(1, 2)
        if stop_tokens:
            is_stop_GST = is_stop(tokens_GST, stop_tokens).to(torch.int64)
            is_after_GST = is_stop_GST.cumsum(dim=-1) > is_stop_GST
            tokens_GST = tokens_GST.masked_fill(is_after_GST, 0)
            log_probs_GST = log_probs_GST.masked_fill(is_after_GST, 0.0)
        probe_GTQ = logits_GTV.log_softmax(dim=-1)[..., list(probe_tokens)]
        return Samples(
            tokens_GST=tokens_GST.to(torch.int32),
            log_probs_GST=log_probs_GST,
            probe_log_probs_GSTQ=probe_GTQ[:, None].expand(-1, num_samples, -1, -1),
            encode_seconds=encoded.seconds,
        )
