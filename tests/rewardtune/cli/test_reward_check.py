"""The reward lab: our own rewards keep every rule, and rewards that break one are caught."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from rewardtune.cli.app import app
from rewardtune.cli.ending import BAD_INPUT
from rewardtune.cli.reward import BROKEN
from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import Group, Score, TokenTargets
from rewardtune.reward_lab.check import UncheckableReward, check_reward
from rewardtune.reward_lab.probes import probe_for
from rewardtune.reward_lab.ranks import spearman
from rewardtune.reward_lab.table import report_json
from rewardtune.tasks.probe import Probe
from rewardtune.tasks.token_probe import TokenProbe
from rewardtune.tasks.vocabulary import Vocabulary
from tests.rewardtune.tiny_run import write_tiny_digits

ROOT = Path(__file__).parents[3]
TASKS = ("detection", "panoptic", "captioning", "colorization")
REWARDS = "tests.rewardtune.broken_rewards"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digit scenes with boxes, maps and captions."""
    made = write_tiny_digits(tmp_path_factory.mktemp("digits"))
    coco = made / "coco" / "train"
    convert_coco(
        images=coco / "images",
        output=made / "all",
        instances=coco / "instances.json",
        panoptic=coco / "panoptic.json",
        captions=coco / "captions.json",
    )
    return made / "all"


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(folder)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reward", "check", *map(str, arguments)])


def broken(dataset: Dataset, use: str, *, task: str = "detection") -> dict[str, str]:
    """The rules that a custom reward breaks."""
    probe = probe_for(task, dataset, options={}, custom=f"{REWARDS}:{use}")
    report = check_reward(probe, dataset, indices=range(6))
    return {violation.rule: str(violation) for violation in report.violations}


# --- our own rewards -------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_our_rewards_keep_every_rule(dataset: Dataset, task: str) -> None:
    done: list[tuple[int, int]] = []
    probe: Probe[Any] = probe_for(task, dataset, options={})
    report = check_reward(
        probe,
        dataset,
        indices=range(12),
        num_samples=4,
        progress=lambda done_now, total: done.append((done_now, total)),
    )
    assert report.violations == ()
    kinds = report.kinds
    assert list(kinds) == list(probe.kinds)
    assert kinds["empty"].reward == 0.0
    assert kinds["perfect"].reward > 0.0
    assert report.seconds_per_sample > 0.0
    assert report.zero_advantage["jittered"] < 0.5
    assert done == [(n, 18) for n in range(1, 19)]
    if task != "captioning":
        assert kinds["shuffled"].reward == pytest.approx(kinds["perfect"].reward)
    if task != "colorization":
        assert kinds["random"].reward < kinds["jittered"].reward < kinds["perfect"].reward
        assert kinds["duplicated"].reward < kinds["perfect"].reward
    # What the policy is to learn is what the metric asks for.
    assert next(iter(report.rank_correlation.values())) > 0.7


def test_the_figures_are_those_of_the_rewards_own_definition(dataset: Dataset) -> None:
    report = check_reward(
        probe_for("detection", dataset, options={"reward": "recall", "max_boxes": 12}),
        dataset,
        indices=range(8),
    )
    objects = np.mean([len(dataset.example(index).category_N) for index in range(8)])
    assert report.kinds["perfect"].reward == pytest.approx(objects)
    assert report.kinds["duplicated"].reward == pytest.approx(0.7 * objects)
    assert report.kinds["duplicated"].components["duplicate_penalty"] == pytest.approx(
        -0.3 * objects
    )
    assert report.kinds["perfect"].metrics["map"] == pytest.approx(1.0)
    assert report.kinds["empty"].metrics["map"] == 0.0

    panoptic = check_reward(
        probe_for("panoptic", dataset, options={"false_positive_weight": 0.5}),
        dataset,
        indices=range(8),
    )
    segments = np.mean([len(dataset.example(index).segments) for index in range(8)])
    assert panoptic.kinds["perfect"].reward == pytest.approx(segments)
    assert panoptic.kinds["perfect"].metrics["PQ"] == 1.0
    random = panoptic.kinds["random"]
    assert random.reward == pytest.approx(
        random.components["matched_iou"] - 0.5 * random.components["false_positives"]
    )


def test_a_check_repeats_itself(dataset: Dataset) -> None:
    def checked(seed: int) -> dict[str, Any]:
        probe = probe_for("panoptic", dataset, options={})
        report = check_reward(probe, dataset, indices=range(4), seed=seed)
        return report_json(replace(report, seconds_per_sample=0.0))

    assert checked(1) == checked(1)
    assert checked(1) != checked(2)


def test_maps_and_pictures_reach_custom_rewards_as_the_tasks_decode_them(dataset: Dataset) -> None:
    rng = np.random.default_rng(0)
    example = dataset.example(0)
    probe = probe_for("panoptic", dataset, options={})
    (map_HW2,) = probe.decoded([probe.draw("perfect", example, rng)], example)
    assert isinstance(map_HW2, np.ndarray)
    listed = {segment.category + 1 for segment in example.segments}
    assert map_HW2.shape == (example.height, example.width, 2)
    assert set(np.unique(map_HW2[..., 0]).tolist()) == listed
    assert len(np.unique(map_HW2[..., 1])) == len(example.segments)
    pictures = probe_for("colorization", dataset, options={})
    (image_HW3,) = pictures.decoded([pictures.draw("perfect", example, rng)], example)
    assert isinstance(image_HW3, np.ndarray) and image_HW3.shape == (32, 32, 3)


# --- rewards that break a rule ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "rule", "message"),
    [
        ("num_boxes", "duplicated box", "it must not rise"),
        ("first_box", "box order", "it must not change"),
        ("rank_in_group", "company", "must not look at its neighbours"),
        ("forgets", "same in, same out", "a function of its input"),
        ("not_a_number", "finite", "not a number"),
        ("punishes", "perfect beats empty", "perfect must earn"),
    ],
)
def test_a_broken_reward_is_caught(dataset: Dataset, use: str, rule: str, message: str) -> None:
    found = broken(dataset, use)
    assert rule in found, found
    assert message in found[rule] and "image 0000" in found[rule]


def test_a_custom_reward_that_keeps_the_rules_passes(dataset: Dataset) -> None:
    assert broken(dataset, "Found") == {}


def test_a_custom_reward_of_captions_is_given_texts(dataset: Dataset) -> None:
    assert set(broken(dataset, "is_short", task="captioning")) == {"perfect beats empty"}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("raises", r"the reward raised on image 000000.png \(id 1\): KeyError: 'threshold'"),
        ("one_for_all", r"has shape \[1\]: return one number for each"),
    ],
)
def test_a_reward_that_does_not_answer_is_told_with_its_example(
    dataset: Dataset, use: str, message: str
) -> None:
    with pytest.raises(UncheckableReward, match=message):
        broken(dataset, use)


def test_a_reward_that_sees_the_order_of_segments_is_caught(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = probe_for("panoptic", dataset, options={})

    def first_listed(predictions: Sequence[Any], example: Example) -> Score:
        reward = float(example.segments[0].id)
        empty = np.array([0.0 if each.label_HW.max() == 0 else reward for each in predictions])
        return Score(reward_S=empty)

    monkeypatch.setattr(probe, "score", first_listed)
    rules = {v.rule for v in check_reward(probe, dataset, indices=range(4)).violations}
    assert rules == {"segment order"}


def test_a_reward_that_sees_where_pixels_are_is_caught(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = probe_for("colorization", dataset, options={})

    def top_row(predictions: Sequence[Any], example: Example) -> Score:
        return Score(
            reward_S=np.array([float(np.ptp(each[0], axis=-1).sum()) for each in predictions])
        )

    monkeypatch.setattr(probe, "score", top_row)
    rules = {v.rule for v in check_reward(probe, dataset, indices=range(4)).violations}
    assert "pixel order" in rules


# --- any task --------------------------------------------------------------------------------


class CountingTask:
    """Count the objects, one token each, in a sequence of six: ``rewardtune.tasks.task.Task``."""

    name = "counting"
    vocabulary = Vocabulary(task="counting", size=3, max_tokens=6, probe_tokens=(1,))
    score_rules = ("plain",)

    def __init__(self, options: Mapping[str, Any], *, categories: Sequence[Category]) -> None:
        assert not options

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        return (np.arange(6) < len(framed.example.category_N)).astype(np.int32)

    def score(self, decoded: Sequence[int], framed: Framed) -> Score:
        counted_S = np.array(decoded, dtype=np.float64)
        return Score(reward_S=-np.abs(counted_S - len(framed.example.category_N)))

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Sequence[int]:
        counted: list[int] = (tokens_ST == 1).sum(axis=1).tolist()
        return counted

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        return None

    def predict(
        self,
        decoded: Sequence[int],
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        assert probe_log_probs_TQ.shape == (6, 1)
        return [{"image_id": framed.example.image_id, "count": decoded[0]}]

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        truth = [len(dataset.example(index).category_N) for index in indices]
        right = [row["count"] == n for row, n in zip(results, truth, strict=True)]
        return {"accuracy": float(np.mean(right))}


TASK = CountingTask


def test_a_task_of_the_users_is_checked_by_its_tokens(dataset: Dataset) -> None:
    probe = probe_for(__name__, dataset, options={})
    assert isinstance(probe, TokenProbe)
    report = check_reward(probe, dataset, indices=range(10))
    assert report.violations == ()
    assert report.kinds["perfect"].metrics == {"accuracy": 1.0}
    assert report.kinds["perfect"].reward == 0.0
    assert report.rank_correlation["accuracy"] > 0.7


# --- the command -----------------------------------------------------------------------------


def test_the_command_shows_a_table_and_succeeds(folder: Path) -> None:
    result = run("colorization", "--dataset", folder, "--num", 4)
    assert result.exit_code == 0, result.output
    for word in ("perfect", "jittered", "vivid", "colourfulness", "every rule held"):
        assert word in result.stdout


def test_the_command_fails_with_the_rule_that_is_broken(folder: Path) -> None:
    result = run(
        "detection", "--dataset", folder, "--num", 4, "--json",
        "--reward", f"{REWARDS}:num_boxes", "--option", "max_boxes=8",
    )  # fmt: skip
    assert result.exit_code == BROKEN
    assert "error: duplicated box: image 000000.png (id 1): the reward was" in result.stderr
    report = json.loads(result.stdout)
    (violation,) = report["violations"]
    assert violation["rule"] == "duplicated box" and violation["num_cases"] >= 4
    assert report["kinds"]["duplicated"]["reward"] > report["kinds"]["perfect"]["reward"]
    assert report["zero_advantage"].keys() == {"jittered", "random"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detection", "--option", "boxes=3"], "unknown detection option 'boxes'"),
        (["panoptic", "--option", "weight=3"], "unknown option 'weight' of panoptic"),
        (["captioning", "--option", "a=3"], "unknown option 'a' of captioning"),
        (["colorization", "--option", "a=3"], "unknown option 'a' of colorization"),
        (["no_such_task"], "task 'no_such_task' is neither"),
        (["detection", "--reward", f"{REWARDS}:missing"], "has no function or class 'missing'"),
    ],
)
def test_bad_input_is_one_line(folder: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments, "--dataset", folder, "--num", 2)
    assert result.exit_code == BAD_INPUT, result.output
    assert result.stdout == "" and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_examples_without_the_annotation_are_named(folder: Path) -> None:
    result = run("panoptic", "--dataset", folder.parent / "train", "--num", 2)
    assert result.exit_code == BAD_INPUT
    assert "has no panoptic map" in result.stderr


def test_checking_needs_no_torch() -> None:
    program = (
        "import sys, rewardtune.reward_lab.check, rewardtune.reward_lab.table\n"
        "from rewardtune.reward_lab import probes\n"
        "from rewardtune.tasks import captioning, colorization, detection, panoptic\n"
        "import reward_workers.scoring.reward\n"
        "print({'torch', 'ray', 'transformers', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "set()\n", done.stderr


# --- ranks -----------------------------------------------------------------------------------


def test_ranks_agree_with_hand_worked_cases() -> None:
    assert spearman([1, 2, 3], [10, 20, 30]) == 1.0
    assert spearman([1, 2, 3], [3.0, 2.0, math.inf * -1]) == -1.0
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([1, 5, 5, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman([1, 2, math.nan], [1, 2, 0]) == 1.0
    assert math.isnan(spearman([1, 1], [1, 2])) and math.isnan(spearman([], []))
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2], [1])


@given(st.lists(st.tuples(st.integers(-4, 4), st.floats(-3, 3)), min_size=2, max_size=30))
def test_ranks_are_those_counted_one_by_one(pairs: list[tuple[int, float]]) -> None:
    def ranks(values: Sequence[float]) -> list[float]:
        return [
            sum(other < value for other in values)
            + (sum(other == value for other in values) + 1) / 2
            for value in values
        ]

    one, two = (ranks(series) for series in zip(*pairs, strict=True))
    if len(set(one)) > 1 and len(set(two)) > 1:
        expected = float(np.corrcoef(one, two)[0, 1])
        assert spearman(*zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-12)
