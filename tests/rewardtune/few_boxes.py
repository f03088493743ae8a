"""A task from outside: detection's codec, rewarded for predicting few boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.detection.task import DetectionTask


class FewBoxes(DetectionTask):
    def score(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
        scored = super().score(tokens_ST, framed)
        return Score(reward_S=-scored.components["boxes"], aux=scored.aux)


TASK = FewBoxes
