"""Captioning with a reward that a policy learns in a few steps: fewer words are better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.captioning.task import CaptioningTask
from rewardtune.tasks.decoded import Decoded


class ShortCaptions(CaptioningTask):
    def score(self, decoded: Decoded[str, Sequence[str]], framed: Framed) -> Score:
        scored = super().score(decoded, framed)
        pieces_S = [float(self.codec.num_pieces(tokens_T)) for tokens_T in decoded.tokens_ST]
        return replace(scored, reward_S=-np.array(pieces_S))


TASK = ShortCaptions
