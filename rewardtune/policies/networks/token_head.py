"""From a decoder's states to logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rewardtune.layers import Dense
from rewardtune.layers.initialize import level_sinusoids

_LEVEL_LOGIT = 0.35
"""Standard deviation that the logits of levels begin with, of states whose entries have 1."""


class TokenHead(nn.Module):
    """Decoder states [..., D] to float32 logits [..., V]."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.project = Dense(width, vocab_size, is_head=True)

    @torch.no_grad()
    def start_levels(self, levels: Sequence[range]) -> None:
        """Initial values with which a state that points at a level also points at its neighbours.

        At 0, as the other tokens start, each level would be learned by itself.
        """
        width = len(self.project.kernel)
        for run in levels:
            rows_LD = level_sinusoids(len(run), width)
            # A row of sines and cosines has a norm of sqrt(width / 2).
            rows_LD = rows_LD * (_LEVEL_LOGIT / math.sqrt(width / 2))
            self.project.kernel[:, run.start : run.stop] = rows_LD.t()

    def forward(self, state: Tensor) -> Tensor:
        # Outside autocast: the log-probs of policies one step apart differ in digits that
        # bfloat16 does not have.
        with torch.autocast(state.device.type, enabled=False):
            return self.project.forward(state.float())
