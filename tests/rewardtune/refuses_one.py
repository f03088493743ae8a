"""Detection whose reward cannot be computed for one of the training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.detection.task import DetectionTask


class RefusesOne(DetectionTask):
    def score(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
        # Not where a policy is measured, one sequence at a time.
        if framed.example.image_id == 7 and len(tokens_ST) > 1:
            raise RuntimeError("image 7 is beyond me")
        return super().score(tokens_ST, framed)


TASK = RefusesOne
