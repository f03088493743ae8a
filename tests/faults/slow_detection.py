"""Detection whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.task import DetectedBox, DetectionTask
from tests.faults.slow_scoring import slowly


class SlowDetection(DetectionTask):
    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        return slowly(super().score(decoded, framed), decoded.tokens_ST)


TASK = SlowDetection
