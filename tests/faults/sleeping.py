"""Detection that takes its time without a core's: scorers and the learner sleep as they are told.

So a run of many services can be measured on a machine with few cores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rewardtune.datasets.example import Category
from rewardtune.datasets.frame import Framed
from rewardtune.records import Group, Score, TokenTargets
from rewardtune.tasks.decoded import Decoded
from rewardtune.tasks.detection.task import DetectedBox, DetectionTask


class SleepingDetection(DetectionTask):
    """Options beside detection's own, in seconds per group: ``score_seconds`` of a scorer, and
    ``learn_seconds`` of the learner, which asks for the soft targets of each group it learns from.
    """

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        own = dict(options)
        self._score_seconds = float(own.pop("score_seconds", 0.0))
        self._learn_seconds = float(own.pop("learn_seconds", 0.0))
        super().__init__(own, categories=categories)

    def score(self, decoded: Decoded[list[DetectedBox], None], framed: Framed) -> Score:
        time.sleep(self._score_seconds)
        scored = super().score(decoded, framed)
        # A network that trains in seconds finds no digit: so that rollouts differ all the same.
        return replace(scored, reward_S=scored.reward_S + (decoded.tokens_ST % 7).mean(axis=1))

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        time.sleep(self._learn_seconds)
        return super().token_targets(group, score)


TASK = SleepingDetection
