"""Rewards of functions, in this process."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.reward import Reward, RewardFailed
from reward_workers.scoring.score import BadScore, score_group
from rewardtune.datasets.frame import Framed, Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import Group, Score
from rewardtune.tasks.task import load_task
from rewardtune.transport.wire import group_from_bytes
from tests.reward_workers.scoring_run import USER_FOLDER, group_of
from tests.reward_workers.user_folder.values_by_token import NAN, RAISE, SHORT, WORDS


@pytest.fixture(autouse=True)
def _users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(USER_FOLDER)])


def load(given: Any, data: Path, **told: Any) -> Reward:
    dataset = open_dataset(data)
    task = told.pop("task", None)
    # Told what is there, so that a server need not be asked: nothing here is about digests.
    resolved = resolve("by_token", {}, RewardConfig.model_validate(given), contents={}, **told)
    reward = resolved.load_reward(
        task=task or resolved.load_task(categories=dataset.categories),
        dataset_digest=dataset.digest,
        patience_seconds=1,
    )
    assert reward is not None
    return reward


def score(given: Any, data: Path, group: Group) -> Score:
    dataset = open_dataset(data)
    task = load_task("by_token", {}, categories=dataset.categories)
    reward = load(given, data)
    return score_group(
        group, task=task, dataset=dataset, reward=reward, framing=Square(side=8)
    ).score


def tokens(*first: int) -> Group:
    """Two rollouts, of which the second ends in one more."""
    return group_from_bytes(group_of(1, *first))


def test_a_function_takes_the_place_of_the_tasks_reward(data: Path) -> None:
    got = score("values_by_token:largest", data, tokens(1, 2, 3))
    assert got.reward_S.tolist() == [3, 4]
    assert {name: value.tolist() for name, value in got.components.items()} == {
        "largest": [3, 4],
        "task": [6, 7],
    }


def test_repeated_rollouts_are_handed_over_once_and_all_rewarded(data: Path) -> None:
    twice_ST = np.array([[1, 2, 9], [1, 2, 3], [1, 2, 9]], dtype=np.int32)
    group = replace(
        tokens(1, 2, 3),
        tokens_ST=twice_ST,
        log_probs_ST=np.zeros((3, 3), np.float32),
        probe_log_probs_STQ=np.zeros((3, 3, 0), np.float32),
    )
    got = score("values_by_token:largest", data, group)
    assert got.reward_S.tolist() == [9, 3, 9]


def test_a_composed_reward_logs_every_part(data: Path) -> None:
    given = {
        "sum": {"task": 1.0, "most": 10.0},
        "gates": ["even"],
        "otherwise": -1.0,
        "parts": {
            "most": {"use": "values_by_token:largest", "clip": [0, 3]},
            "even": {"use": "values_by_token:is_even"},
        },
    }
    got = score(given, data, tokens(1, 2, 3))
    assert got.reward_S.tolist() == [36, -1]
    assert got.components["most"].tolist() == [3, 4]
    assert got.components["even"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("token", "error", "complaint"),
    [
        (RAISE, RewardFailed, "LookupError: no such thing"),
        (NAN, BadScore, "gave nan, not a finite number"),
        (SHORT, BadScore, r"gave shape \[1\] for 2 predictions"),
        (WORDS, BadScore, "gave list that is not numbers"),
    ],
)
def test_what_goes_wrong_names_the_reward_and_the_example(
    data: Path, token: int, error: type[Exception], complaint: str
) -> None:
    where = r"reward 'largest' \(values_by_token:largest\), image 1\.png \(id 1\): "
    with pytest.raises(error, match=where + complaint) as caught:
        score("values_by_token:largest", data, tokens(token, 2, 3))
    assert "\n" not in str(caught.value)


def test_a_class_is_built_once_with_its_options(data: Path, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("3")
    options = {"path": str(tmp_path / "value"), "times": 2.0}
    part = {"use": "values_by_token:FromFile", "options": options}
    reward = load({"sum": {"fixed": 1}, "parts": {"fixed": part}}, data)
    group, dataset = tokens(1, 2, 3), open_dataset(data)
    own = Score(reward_S=np.zeros(2))
    module = sys.modules["values_by_token"]
    before = module.FromFile.num_built
    for _ in range(2):
        framed = Framed.of(dataset.example(0), group.view, Square(side=8))
        got = reward.apply(own, group, framed, group.tokens_ST.tolist())
        assert got.reward_S.tolist() == [6, 6]
    assert module.FromFile.num_built == before


def test_files_are_looked_for_in_the_folder_given_first(data: Path, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("7")
    part = {"use": "values_by_token:FromFile", "options": {"path": "/of/another/machine/value"}}
    given = {"sum": {"fixed": 1}, "parts": {"fixed": part}}
    with pytest.raises(ValueError, match="which is not on this machine.*--artefacts"):
        load(given, data)
    reward = load(given, data, artefacts=tmp_path)
    got = reward.apply(
        Score(reward_S=np.zeros(2)),
        tokens(1, 2, 3),
        Framed.of(open_dataset(data).example(0), tokens(1, 2, 3).view, Square(side=8)),
        tokens(1, 2, 3).tokens_ST.tolist(),
    )
    assert got.reward_S.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        ("not_a_module:f", "there is no module not_a_module here: put its folder on PYTHONPATH"),
        ("values_by_token:poetry", "has no function or class 'poetry'"),
        ("values_by_token:HANG", "has no function or class 'HANG'"),
    ],
)
def test_a_function_that_is_not_there_is_one_clear_error(
    data: Path, use: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        load(use, data)


def test_a_task_that_cannot_decode_says_so(data: Path) -> None:
    with pytest.raises(ValueError, match="task 'by_token' has no decode"):
        load("values_by_token:largest", data, task=object())


def test_a_part_named_as_a_component_of_the_task_is_refused(data: Path) -> None:
    own = Score(reward_S=np.zeros(2), components={"largest": np.zeros(2)})
    reward = load("values_by_token:largest", data)
    with pytest.raises(ValueError, match="has the name of a component of task 'by_token'"):
        reward.apply(
            own,
            tokens(1, 2, 3),
            Framed.of(open_dataset(data).example(0), tokens(1, 2, 3).view, Square(side=8)),
            tokens(1, 2, 3).tokens_ST.tolist(),
        )
