"""A few convolutions and a GRU as a policy: ``policy.kind = "conv_gru:ConvGru"``.

Axes: G groups (images), S sequences of a group, N = G*S, T tokens, D width, V vocabulary,
H height, W width of a picture, C colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from rewardtune.datasets.frame import Framing, Square
from rewardtune.policies.decoding.left_to_right import draw_left_to_right
from rewardtune.policies.draw import Decoding
from rewardtune.policies.encoding import encode_timed
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.policy import Policy, Samples, TokenLogProbs, TokenQueries

GRID = 3
"""The picture is summed up in this many cells along each side."""


class ConvGruConfig(BaseModel):
    """All that is needed to build the network again; a policy file keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: PositiveInt
    sequence_length: PositiveInt
    input_size: PositiveInt
    width: PositiveInt = 128
    channels: PositiveInt = 32


class Encoder(nn.Module):
    def __init__(self, config: ConvGruConfig) -> None:
        super().__init__()
        channels = config.channels
        self.first = nn.Conv2d(3, channels, 5, stride=2, padding=2)
        self.second = nn.Conv2d(channels, 2 * channels, 5, stride=2, padding=2)
        self.pool = nn.AdaptiveAvgPool2d(GRID)
        self.project = nn.Linear(2 * channels * GRID**2, config.width)

    def forward(self, images_GHWC: Tensor) -> Tensor:
        x = images_GHWC.permute(0, 3, 1, 2).to(self.first.weight.dtype)
        x = self.second(self.first(x).relu()).relu()
        context_GD: Tensor = self.project(self.pool(x).flatten(1)).tanh()
        return context_GD


class Decoder(nn.Module):
    def __init__(self, config: ConvGruConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.cell = nn.GRUCell(2 * config.width, config.width)
        # Samplers in bfloat16 leave what is called head in float32.
        self.head = nn.Linear(config.width, config.vocab_size)

    def step(self, token_N: Tensor, state_ND: Tensor, context_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N, V] of the next token, and the state after it; 0 stands before the first."""
        seen = torch.cat([self.embedding(token_N), context_ND], dim=-1)
        state_ND = self.cell(seen, state_ND)
        # Outside autocast: log-probs differ in digits that bfloat16 does not have.
        with torch.autocast(state_ND.device.type, enabled=False):
            logits_NV = self.head(state_ND.float())
        return logits_NV, state_ND.to(context_ND.dtype)


class _Drawing:
    """The decoder at work; ``rewardtune.policies.decoding.left_to_right.NextToken``."""

    def __init__(self, decoder: Decoder, context_ND: Tensor) -> None:
        self._decoder = decoder
        self._context_ND = context_ND
        self._state_ND = torch.zeros_like(context_ND)

    def logits(self, token_N: Tensor, position: int) -> Tensor:
        logits_NV, self._state_ND = self._decoder.step(token_N, self._state_ND, self._context_ND)
        return logits_NV


class ConvGru(Policy):
    config: ConvGruConfig

    def __init__(self, config: ConvGruConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @classmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        return cls(ConvGruConfig.model_validate(sizes))

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        with torch.random.fork_rng(devices=()):  # others count on these numbers
            return cls(ConvGruConfig.model_validate(config))

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def framing(self) -> Framing:
        return Square(side=self.config.input_size)

    def log_prob(
        self,
        images_GHWC: Tensor,
        tokens_GST: Tensor,
        *,
        queries: TokenQueries | None = None,
        temperature: float = 1.0,
        recompute: bool = False,  # there is little to keep
    ) -> TokenLogProbs:
        context_ND = self.encoder(images_GHWC).repeat_interleave(tokens_GST.shape[1], dim=0)
        tokens_NT = tokens_GST.flatten(0, 1)
        at_work, before_N = _Drawing(self.decoder, context_ND), torch.zeros_like(tokens_NT[:, 0])
        logits = []
        for position, token_N in enumerate(tokens_NT.unbind(dim=1)):
            logits.append(at_work.logits(before_N, position))
            before_N = token_N
        return log_probs_of(
            torch.stack(logits, dim=1), tokens_GST, queries=queries, temperature=temperature
        )

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
        encoded = encode_timed(self.encoder, images_GHWC)
        context_ND = encoded.context_GPD.repeat_interleave(uniforms_GST.shape[1], dim=0)
        samples = draw_left_to_right(
            _Drawing(self.decoder, context_ND),
            uniforms_GST,
            decoding=decoding,
            probe_tokens=probe_tokens,
            stop_tokens=stop_tokens,
        )
        return replace(samples, encode_seconds=encoded.seconds)
