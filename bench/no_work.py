"""A task and a policy that do nothing, so that what is left is everything around them.

Axes: G groups, S rollouts, T tokens, Q probed tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from rewardtune.datasets.frame import Framed, Framing, Square
from rewardtune.policies.draw import Decoding
from rewardtune.policies.policy import Policy, Samples, TokenLogProbs, TokenQueries
from rewardtune.records import Group, Score, TokenTargets
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.task import DetectedBox, DetectionTask


class NoWorkTask(DetectionTask):
    """Detection's vocabulary; every rollout earns what its first token says."""

    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        return Score(reward_S=decoded.tokens_ST[:, 0].astype(np.float64))

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        return None


class NoWorkSizes(BaseModel):
    vocab_size: int
    sequence_length: int
    input_size: int


class NoWorkPolicy(Policy):
    """One parameter. The rollouts of a group differ in their first token."""

    config: NoWorkSizes

    def __init__(self, config: NoWorkSizes) -> None:
        super().__init__()
        self.config = config
        self.bias = nn.Parameter(torch.zeros(()))

    @classmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        return cls.build(sizes)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        return cls(NoWorkSizes.model_validate(config))

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
        recompute: bool = False,
    ) -> TokenLogProbs:
        return TokenLogProbs(self.bias.expand(tokens_GST.shape), queried_GSPK=None)

    def sample(
        self,
        images_GHWC: Tensor,
        uniforms_GST: Tensor,
        *,
        decoding: Decoding,
        probe_tokens: tuple[int, ...] = (),
        stop_tokens: tuple[int, ...] = (),
    ) -> Samples:
        tokens_GST = torch.zeros(uniforms_GST.shape, dtype=torch.int32)
        tokens_GST[..., 0] = torch.arange(uniforms_GST.shape[1], dtype=torch.int32)
        return Samples(
            tokens_GST=tokens_GST,
            log_probs_GST=torch.zeros(uniforms_GST.shape),
            probe_log_probs_GSTQ=torch.zeros(*uniforms_GST.shape, len(probe_tokens)),
        )


TASK = NoWorkTask
