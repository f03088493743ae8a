"""A task from outside: detection's codec, rewarded for predicting few boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.records import Score, View
from rewardtune.tasks.detection.task import DetectionTask


class FewBoxes(DetectionTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        scored = super().score(tokens_ST, example, view, input_size=input_size)
        return Score(reward_S=-scored.components["boxes"], aux=scored.aux)


TASK = FewBoxes
