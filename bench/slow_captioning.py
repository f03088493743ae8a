"""Captioning whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.slow_scoring import slowly
from records import Score, View
from tasks.captioning.task import CaptioningTask
from tasks.example import Example


class SlowCaptioning(CaptioningTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        return slowly(super().score(tokens_ST, example, view, input_size=input_size), tokens_ST)


TASK = SlowCaptioning
