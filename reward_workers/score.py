"""Scoring one group: a pure function of the group, the data set and the task.

Axes: S rollouts, U distinct rollouts, T tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from records import Group, Score, ScoredGroup
from tasks.example import Dataset
from tasks.task import Task


class BadScore(ValueError):
    """A task's score that cannot be trained on: wrong shape, or not finite."""


def score_group(group: Group, *, task: Task, dataset: Dataset, input_size: int) -> ScoredGroup:
    """Reward every rollout of a group; identical rollouts are scored once.

    Raises:
        BadScore: the task returned rewards of the wrong shape, NaN or infinity.
    """
    example = dataset.example(group.example)
    distinct_UT, place_S = np.unique(group.tokens_ST, axis=0, return_inverse=True)
    place_S = place_S.reshape(-1)
    distinct = task.score(distinct_UT, example, group.view, input_size=input_size)
    where = f"task '{task.name}', image {example.file_name} (id {example.image_id})"
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


def _check(name: str, values: NDArray[np.float64], num_rollouts: int, where: str) -> None:
    if values.ndim < 1 or len(values) != num_rollouts:
        raise BadScore(
            f"{where}: {name} has shape {list(values.shape)} but {num_rollouts} rollouts were "
            "given: return one row per rollout"
        )
    if not np.isfinite(values).all():
        raise BadScore(f"{where}: {name} is {values[~np.isfinite(values)].flat[0]}, not a number")
