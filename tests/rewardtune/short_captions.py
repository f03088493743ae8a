"""Captioning with a reward that a policy learns in a few steps: fewer words are better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.captioning.task import CaptioningTask


class ShortCaptions(CaptioningTask):
    def score(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
        scored = super().score(tokens_ST, framed)
        pieces_S = [float(self.codec.num_pieces(tokens_T)) for tokens_T in tokens_ST]
        return replace(scored, reward_S=-np.array(pieces_S))


TASK = ShortCaptions
