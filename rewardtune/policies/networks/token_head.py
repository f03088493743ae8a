"""From a decoder's states to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rewardtune.layers import Dense


class TokenHead(nn.Module):
    """Decoder states [..., D] to float32 logits [..., V]."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.project = Dense(width, vocab_size, is_head=True)

    def forward(self, state: Tensor) -> Tensor:
        # Outside autocast: the log-probs of policies one step apart differ in digits that
        # bfloat16 does not have.
        with torch.autocast(state.device.type, enabled=False):
            return self.project.forward(state.float())
