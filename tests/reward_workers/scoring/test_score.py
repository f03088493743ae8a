from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_workers.scoring.score import BadScore, score_group
from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import Group, Published, Score, View


class _Sums:
    """Rewards the sum of a rollout's tokens, and counts what it was asked."""

    name = "sums"

    def __init__(self, spoil: Any = None) -> None:
        self.asked: list[NDArray[np.int32]] = []
        self._spoil = spoil

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> NDArray[np.int32]:
        return tokens_ST

    def score(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Score:
        self.asked.append(tokens_ST)
        reward_S = tokens_ST.sum(axis=1).astype(np.float64)
        if self._spoil is not None:
            reward_S = self._spoil(reward_S)
        return Score(
            reward_S=reward_S, components={"sum": reward_S}, aux={"raw": reward_S[:, None]}
        )


class _OneExample:
    digest = ""
    categories: tuple[Category, ...] = ()

    def __len__(self) -> int:
        return 1

    def example(self, index: int) -> Example:
        empty = np.zeros(0)
        return Example(
            image_id=7,
            file_name="seven.png",
            height=4,
            width=4,
            image=b"",
            xywh_N4=np.zeros((0, 4)),
            category_N=empty.astype(np.int64),
            area_N=empty,
            is_crowd_N=empty.astype(bool),
            annotation_id_N=empty.astype(np.int64),
        )


GROUP = Group(
    ordinal=3,
    example=0,
    view=View(),
    published=Published(term=0, policy_version=1),
    tokens_ST=np.array([[1, 2], [5, 5], [1, 2], [0, 9]], dtype=np.int32),
    log_probs_ST=np.zeros((4, 2), dtype=np.float32),
    probe_log_probs_STQ=np.zeros((4, 2, 0), dtype=np.float32),
)


def score(task: Any, group: Group = GROUP) -> Score:
    return score_group(group, task=task, dataset=_OneExample(), framing=Square(side=4)).score


def test_rewards_come_back_in_the_order_of_the_rollouts() -> None:
    scored = score(_Sums())
    assert scored.reward_S.tolist() == [3, 10, 3, 9]
    assert scored.components["sum"].tolist() == [3, 10, 3, 9]
    assert scored.aux["raw"].tolist() == [[3], [10], [3], [9]]


def test_identical_rollouts_are_scored_once() -> None:
    task = _Sums()
    score(task)
    assert [len(tokens) for tokens in task.asked] == [3]


def test_a_score_does_not_depend_on_the_order_of_its_mates() -> None:
    turned = replace(GROUP, tokens_ST=GROUP.tokens_ST[::-1].copy())
    assert score(_Sums(), turned).reward_S.tolist() == score(_Sums()).reward_S.tolist()[::-1]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda r: r[:-1], "one row per rollout"),
        (lambda r: np.where(r > 9, np.nan, r), "nan, not a number"),
        (lambda r: r * np.inf, "inf, not a number"),
    ],
)
def test_a_reward_that_cannot_be_trained_on_is_an_error_naming_the_example(
    spoil: Any, complaint: str
) -> None:
    with pytest.raises(BadScore, match=rf"image seven\.png \(id 7\).*{complaint}"):
        score(_Sums(spoil))
