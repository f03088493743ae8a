"""Detection whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from records import Score, View
from tasks.detection.task import DetectionTask
from tasks.example import Example

SECONDS = 0.02


class SlowDetection(DetectionTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        time.sleep(SECONDS)
        scored = super().score(tokens_ST, example, view, input_size=input_size)
        # A network that trains in seconds finds no digit: so that rollouts differ all the same.
        return replace(scored, reward_S=scored.reward_S + (tokens_ST % 7).mean(axis=1))


TASK = SlowDetection
