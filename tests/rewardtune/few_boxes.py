"""A task from outside: detection's codec, rewarded for predicting few boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from records import Score, View
from tasks.detection.task import DetectionTask
from tasks.example import Example


class FewBoxes(DetectionTask):
    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        scored = super().score(tokens_ST, example, view, input_size=input_size)
        return Score(reward_S=-scored.components["boxes"], aux=scored.aux)


TASK = FewBoxes
