"""The colorization task through the pipeline: its policy sees no colour, and learns some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Square
from rewardtune.datasets.view import ViewConfig
from rewardtune.evaluation import evaluate as evaluation
from rewardtune.records import View, Window
from rewardtune.run import local
from rewardtune.run.assembly import assemble
from rewardtune.run.log import JsonLinesLog
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.colorization.tripwire import ColourTripwires
from tests.rewardtune.tasks.uvim.small import write_stage_one
from tests.rewardtune.tiny_run import SILENT, tiny_config, tiny_tune
from tests.rewardtune.tiny_stage_one import check_that_tuning_repeats, write_panoptic_digits


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_panoptic_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def stage_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random: after a few steps of training all codes would still decode to the same grey."""
    return write_stage_one(tmp_path_factory.mktemp("stage_one"), "colorization")


@pytest.fixture(scope="module")
def policy(data: Path, stage_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(data, tmp_path_factory.mktemp("pretrain"), task="colorization")
    config = config.model_copy(update={"task_options": {"stage_one": str(stage_one)}})
    result = local.pretrain(config, SILENT)
    assert result.is_finished
    assert set(result.metrics) >= {"colour_reward", "vivid", "entropy", "psnr_lightness", "reward"}
    return result.policy_path


def test_the_policy_is_shown_no_colour(data: Path, stage_one: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path, task="colorization")
    parts = assemble(config.model_copy(update={"task_options": {"stage_one": str(stage_one)}}))
    seen = [(0, View())]
    images = images_in_view(parts.train, seen, task=parts.task, framing=Square(side=32))
    assert np.array_equal(images[..., 0], images[..., 1])
    assert np.array_equal(images[..., 0], images[..., 2])
    assert images.std() > 0


def test_a_policy_tunes_to_the_same_bytes_twice(
    data: Path, stage_one: Path, policy: Path, tmp_path: Path
) -> None:
    check_that_tuning_repeats(data, stage_one, policy, tmp_path, task="colorization")


def test_every_step_logs_what_tells_that_the_reward_is_gamed(
    data: Path, stage_one: Path, policy: Path, tmp_path: Path
) -> None:
    config = tiny_tune(data, policy, tmp_path, task="colorization", learner={"num_steps": 1})
    log = JsonLinesLog(tmp_path / "log.jsonl")
    local.tune(config.model_copy(update={"task_options": {"stage_one": str(stage_one)}}), log)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (record,) = [line for line in lines if "reward_vivid" in line]
    for field in fields(ColourTripwires):
        assert record[f"reward_{field.name}"] >= 0
    assert record["reward_chroma"] > 0


def test_what_was_trained_on_squeezed_pictures_is_measured_on_such(
    data: Path, stage_one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[View] = []

    def watching(dataset: Dataset, rows: Sequence[tuple[int, View]], **how: Any) -> Any:
        seen.extend(view for _, view in rows)
        return images_in_view(dataset, rows, **how)

    monkeypatch.setattr(evaluation, "images_in_view", watching)
    config = tiny_config(data, tmp_path, task="colorization", learner={"num_steps": 1})
    views = ViewConfig(flip_probability=0.5, keep_aspect=False, min_crop_area=0.3)
    config = config.model_copy(
        update={
            "task_options": {"stage_one": str(stage_one)},
            "data": config.data.model_copy(update={"views": views}),
        }
    )
    policy = local.pretrain(config, SILENT).policy_path
    holdout = ["evaluate", str(policy), "--data", str(data / "holdout")]
    assert CliRunner().invoke(app, holdout).exit_code == 0
    assert len(seen) > 1 and set(seen) == {View(window=Window())}


def test_predictions_are_pictures_from_which_the_figures_come_again(
    data: Path, policy: Path, tmp_path: Path
) -> None:
    runner, output = CliRunner(), tmp_path / "out"
    result = runner.invoke(
        app, ["predict", str(policy), "--data", str(data / "holdout"), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(
        runner.invoke(app, ["evaluate", str(policy), "--data", str(data / "holdout")]).stdout
    )
    originals = data / "scenes" / "coco" / "holdout" / "images"
    scored = runner.invoke(
        app,
        ["score", "colorization", str(output / "pictures"), "--annotations", str(originals)],
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["reward"] == pytest.approx(figures["colour_reward"])
