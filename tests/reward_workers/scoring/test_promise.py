"""What a run promises of its scores: what the task declares, if it is the task's own to declare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.score import BadScore
from reward_workers.scoring.spec import make_promise
from rewardtune.datasets.example import Category
from rewardtune.records import Score
from rewardtune.tasks.detection.task import DetectionTask

CATEGORIES = [Category(id=1, name="one", num_instances=1)]
OPTIONS = {"max_boxes": 2, "reward": "recall"}
SCORE = Score(
    reward_S=np.array([1.0, 0.0]),
    components={"match": np.array([1.0, 0.0])},
    aux={"step_reward": np.array([[1.0, 0.0], [0.0, 0.0]])},
)


class Anew(DetectionTask):
    def score(self, *arguments: Any, **options: Any) -> Score:
        return SCORE


class AnewWithin(Anew):
    @property
    def score_bounds(self) -> dict[str, tuple[float, float]]:
        return {"reward": (0.0, 0.5)}


class SeenAsBefore(DetectionTask):
    """Changes nothing of a score."""


def test_a_promise_has_the_names_and_shapes_of_what_was_scored() -> None:
    promise = make_promise(DetectionTask(OPTIONS, categories=CATEGORIES), None, [SCORE, SCORE])
    assert promise.components == ("match",)
    assert promise.aux == {"step_reward": (2,)}
    assert promise.has_step_sums
    assert promise.bounds["reward"] == (-0.6, 2.0)
    assert make_promise(SeenAsBefore(OPTIONS, categories=CATEGORIES), None, []).bounds


def test_bounds_are_not_inherited_by_who_scores_anew() -> None:
    assert make_promise(Anew(OPTIONS, categories=CATEGORIES), None, [SCORE]).bounds == {}


def test_a_task_that_does_not_keep_to_its_bounds_is_told_before_the_run() -> None:
    with pytest.raises(BadScore, match="its own score_bounds: reward is 1, outside 0 to 0.5"):
        make_promise(AnewWithin(OPTIONS, categories=CATEGORIES), None, [SCORE])


@pytest.mark.parametrize(
    ("shape", "bounds"),
    [
        ({"clip": [-1.0, 2.0]}, (-1.0, 2.0)),
        ({"saturate": 3.0}, (-3.0, 3.0)),
        ({"clip": [0.0, 1.0], "gates": ["task"], "otherwise": -5.0}, (-5.0, 1.0)),
        ({}, None),
    ],
)
def test_a_runs_own_reward_is_bounded_where_something_keeps_it_there(
    shape: dict[str, Any], bounds: tuple[float, float] | None
) -> None:
    reward = RewardConfig.model_validate({"sum": {"task": 1.0}, **shape})
    promise = make_promise(DetectionTask(OPTIONS, categories=CATEGORIES), reward, [])
    assert promise.bounds.get("reward") == bounds
    assert promise.bounds["match"] == (0.0, 2.0)
