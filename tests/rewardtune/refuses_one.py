"""Detection whose reward cannot be computed for one of the training images."""

from __future__ import annotations

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.task import DetectedBox, DetectionTask


class RefusesOne(DetectionTask):
    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        # Not where a policy is measured, one sequence at a time.
        if framed.example.image_id == 7 and len(decoded) > 1:
            raise RuntimeError("image 7 is beyond me")
        return super().score(decoded, framed)


TASK = RefusesOne
