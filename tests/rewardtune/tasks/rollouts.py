"""Rollouts as tokens through a task's two steps: decoded once, then scored or written down."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Framed
from rewardtune.records import Score
from rewardtune.tasks.task import Task


def scored(task: Task, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
    return task.score(task.decode(tokens_ST, framed), framed)


def predicted(
    task: Task,
    tokens_T: NDArray[np.int32],
    log_probs_T: NDArray[np.float32],
    probe_log_probs_TQ: NDArray[np.float32],
    framed: Framed,
    *,
    score_rule: str,
) -> list[dict[str, Any]]:
    decoded = task.decode(tokens_T[None], framed)
    return task.predict(decoded, log_probs_T, probe_log_probs_TQ, framed, score_rule=score_rule)
