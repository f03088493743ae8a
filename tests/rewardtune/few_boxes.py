"""A task from outside: detection's codec, rewarded for predicting few boxes."""

from __future__ import annotations

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.task import DetectedBox, DetectionTask


class FewBoxes(DetectionTask):
    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        scored = super().score(decoded, framed)
        return Score(reward_S=-scored.components["boxes"], aux=scored.aux)


TASK = FewBoxes
