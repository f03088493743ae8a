"""Scoring one group: a pure function of the group, the data set, the task and the reward.

Axes: S rollouts, U distinct rollouts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.datasets.frame import Framed, Framing
from rewardtune.records import Group, Score, ScoredGroup
from rewardtune.tasks.task import Task


class BadScore(ValueError):
    """A score that cannot be trained on: wrong shape, or not finite."""


class Custom(Protocol):
    """A run's reward beside the task's own; see ``reward_workers.scoring.reward``."""

    def apply(self, own: Score, group: Group, framed: Framed, predictions: Sequence[Any]) -> Score:
        """The score to learn from, of distinct rollouts whose score by the task is ``own``.

        Args:
            predictions: the rollouts as the task decoded them.
        """
        ...


def score_group(
    group: Group, *, task: Task, dataset: Dataset, framing: Framing, reward: Custom | None = None
) -> ScoredGroup:
    """Reward every rollout of a group; identical rollouts are scored once.

    Args:
        reward: what the run is rewarded by; None: the task's own reward.

    Raises:
        BadScore: rewards of the wrong shape, NaN or infinity.
        Exception: whatever the task raises, or ``RewardFailed`` for what the reward does.
    """
    example = dataset.example(group.example)
    first_U, place_S = _distinct(group.tokens_ST)
    distinct_UT = group.tokens_ST[first_U]
    framed = Framed.of(example, group.view, framing)
    decoded = task.decode(distinct_UT, framed)
    distinct = task.score(decoded, framed)
    where = f"task '{task.name}', {image_of(example)}"
    if reward is not None:
        _check("reward", distinct.reward_S, len(distinct_UT), where)
        once = replace(
            group,
            tokens_ST=distinct_UT,
            log_probs_ST=group.log_probs_ST[first_U],
            probe_log_probs_STQ=group.probe_log_probs_STQ[first_U],
        )
        distinct = reward.apply(distinct, once, framed, decoded)
    _check("reward", distinct.reward_S, len(distinct_UT), where)
    for name, values in {**distinct.components, **distinct.aux}.items():
        _check(name, values, len(distinct_UT), where)
    score = Score(
        reward_S=distinct.reward_S[place_S],
        components={name: values[place_S] for name, values in distinct.components.items()},
        aux={name: values[place_S] for name, values in distinct.aux.items()},
        is_valid=distinct.is_valid,
    )
    return ScoredGroup(group=group, score=score)


def image_of(example: Example) -> str:
    """Names an example in errors."""
    return f"image {example.file_name} (id {example.image_id})"


def _distinct(tokens_ST: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each distinct rollout comes first, and which of them each rollout is.

    By the bytes of rows: sorting them, as numpy's unique does, takes most of a small group's time.
    """
    places: dict[bytes, int] = {}
    first_U: list[int] = []
    place_S = np.empty(len(tokens_ST), dtype=np.int64)
    for s, row_T in enumerate(tokens_ST):
        place_S[s] = place = places.setdefault(row_T.tobytes(), len(places))
        if place == len(first_U):
            first_U.append(s)
    return np.array(first_U, dtype=np.int64), place_S


def _check(name: str, values: NDArray[np.float64], num_rollouts: int, where: str) -> None:
    if values.ndim < 1 or len(values) != num_rollouts:
        raise BadScore(
            f"{where}: {name} has shape {list(values.shape)} but {num_rollouts} rollouts were "
            "given: return one row per rollout"
        )
    if not np.isfinite(values).all():
        raise BadScore(f"{where}: {name} is {values[~np.isfinite(values)].flat[0]}, not a number")
