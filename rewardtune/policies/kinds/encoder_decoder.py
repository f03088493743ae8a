"""ViT encoder + autoregressive token decoder (big_vision models/proj/uvim/vtt.py).

Axes: G groups (images), S sequences of a group, N = G*S, T tokens, P patches, D width,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from rewardtune.datasets.frame import Framing
from rewardtune.layers.position import tokens_alike
from rewardtune.policies.decoding.cached import decode
from rewardtune.policies.draw import Decoding
from rewardtune.policies.encoding import encode_timed
from rewardtune.policies.kinds.big_vision import load_big_vision
from rewardtune.policies.kinds.carry import carry, with_readout
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.networks.token_decoder import TokenDecoder
from rewardtune.policies.networks.vit import EncoderDecoderConfig, VitPolicy
from rewardtune.policies.policy import Samples, TokenLogProbs, TokenQueries

__all__ = ["EncoderDecoder", "EncoderDecoderConfig"]


class EncoderDecoder(VitPolicy):
    """An image to a distribution over token sequences; a ``Policy``."""

    kind: ClassVar[str] = "encoder_decoder"

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__(config)
        self.decoder = TokenDecoder(config)

    @torch.no_grad()
    def start_positions(self) -> None:
        super().start_positions()
        if self.config.position_embedding == "learned":
            begun = tokens_alike(self.config.sequence_length, self.config.width)
            self.decoder.position_embedding.copy_(begun)

    def start_levels(self, levels: Sequence[range]) -> None:
        """See ``Policy.start_levels``."""
        self.decoder.start_levels(levels)

    def logits(self, context_GPD: Tensor, tokens_NT: Tensor, *, recompute: bool = False) -> Tensor:
        """Teacher-forced logits [N, T, V] of sequences whose groups stand next to each other."""
        return self.decoder.forward(tokens_NT, context_GPD, recompute=recompute)

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
        tokens_NT = tokens_GST.flatten(0, 1)
        logits_NTV = self.logits(context_GPD, tokens_NT, recompute=recompute)
        return log_probs_of(logits_NTV, tokens_GST, queries=queries, temperature=temperature)

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
        encoded = encode_timed(self.encode, images_GHWC)
        samples = decode(
            self.decoder,
            encoded.context_GPD,
            uniforms_GST,
            decoding=decoding,
            probe_tokens=probe_tokens,
            stop_tokens=stop_tokens,
        )
        return replace(samples, encode_seconds=encoded.seconds)

    def carried(
        self,
        *,
        vocabulary_from: Mapping[str, Any],
        vocabulary_to: Mapping[str, Any],
        framing: Framing,
    ) -> Self:
        """To other classes, another input size or another length: see ``carry``."""
        return carry(
            self,
            vocabulary_from=vocabulary_from,
            vocabulary_to=vocabulary_to,
            input_size=framing.side,
        )

    def with_readout(self, every: int, *, seen_as: int | None) -> Self:
        """See ``Policy.with_readout``; it starts as a copy of the decoder."""
        return with_readout(self, every, seen_as=seen_as)

    def take_encoder(self, path: Path) -> None:
        """That of a published ViT (``.npz``), whose positions are resampled."""
        load_big_vision(self, path)
