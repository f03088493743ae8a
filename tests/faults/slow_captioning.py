"""Captioning whose scoring takes a moment: a process that is killed is then killed at work."""

from __future__ import annotations

from collections.abc import Sequence

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.captioning.task import CaptioningTask
from rewardtune.tasks.decoded import Decoded
from tests.faults.slow_scoring import slowly


class SlowCaptioning(CaptioningTask):
    def score(self, decoded: Decoded[str, Sequence[str]], framed: Framed) -> Score:
        return slowly(super().score(decoded, framed), decoded.tokens_ST)


TASK = SlowCaptioning
