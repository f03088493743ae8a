"""Captioning whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.captioning.task import CaptioningTask
from tests.faults.slow_scoring import slowly


class SlowCaptioning(CaptioningTask):
    def score(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
        return slowly(super().score(tokens_ST, framed), tokens_ST)


TASK = SlowCaptioning
