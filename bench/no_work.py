"""A task and a policy that do nothing, so that what is left is everything around them.

Axes: G groups, S rollouts, T tokens, Q probed tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewardtune.datasets.example import Example
from rewardtune.policies.draw import Decoding
from rewardtune.policies.policy import Samples, TokenLogProbs, TokenQueries
from rewardtune.records import Group, Score, TokenTargets, View
from rewardtune.tasks.detection.task import DetectionTask


class NoWorkTask(DetectionTask):
    """Detection's vocabulary; every rollout earns what its first token says."""

    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        return Score(reward_S=tokens_ST[:, 0].astype(np.float64))

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        return None


class NoWorkPolicy(nn.Module):
    """One parameter. The rollouts of a group differ in their first token."""

    def __init__(self, *, vocab_size: int, sequence_length: int, input_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.sequence_length = sequence_length
        self.input_size = input_size
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def module(self) -> nn.Module:
        return self

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
