"""Captioning whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.records import Score, View
from rewardtune.tasks.captioning.task import CaptioningTask
from tests.faults.slow_scoring import slowly


class SlowCaptioning(CaptioningTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        return slowly(super().score(tokens_ST, example, view, input_size=input_size), tokens_ST)


TASK = SlowCaptioning
