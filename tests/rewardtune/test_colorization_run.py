"""The colorization task through the pipeline: its policy sees no colour, and learns some."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from records import View
from rewardtune import local
from rewardtune.assembly import assemble
from rewardtune.cli import app
from tasks.batch import images_in_view
from tests.rewardtune.tiny_run import SILENT, tiny_config
from tests.rewardtune.tiny_stage_one import check_that_tuning_repeats, write_panoptic_digits
from tests.tasks.uvim.small import write_stage_one


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
    images = images_in_view(parts.train, seen, task=parts.task, input_size=32)
    assert np.array_equal(images[..., 0], images[..., 1])
    assert np.array_equal(images[..., 0], images[..., 2])
    assert images.std() > 0


def test_a_policy_tunes_to_the_same_bytes_twice(
    data: Path, stage_one: Path, policy: Path, tmp_path: Path
) -> None:
    check_that_tuning_repeats(data, stage_one, policy, tmp_path, task="colorization")


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
