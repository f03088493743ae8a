"""The panoptic task through the same pipeline as any other: pretrain, tune, evaluate, draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.run import local
from rewardtune.stage_one.training import train_stage_one
from tests.rewardtune.tiny_run import SILENT, tiny_config
from tests.rewardtune.tiny_stage_one import (
    check_that_tuning_repeats,
    tiny_stage_one,
    write_panoptic_digits,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_panoptic_digits(tmp_path_factory.mktemp("panoptic"))


@pytest.fixture(scope="module")
def stage_one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("stage_one")
    config = tiny_stage_one(data, run, training={"num_steps": 12})
    train_stage_one(config, SILENT)
    return run / "stage_one.safetensors"


@pytest.fixture(scope="module")
def policy(data: Path, stage_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(data, tmp_path_factory.mktemp("pretrain"), task="panoptic")
    config = config.model_copy(update={"task_options": {"stage_one": str(stage_one)}})
    result = local.pretrain(config, SILENT)
    assert result.is_finished
    assert set(result.metrics) >= {"pq", "sq", "rq", "reward", "segments_per_image"}
    return result.policy_path


def test_a_policy_tunes_to_the_same_bytes_twice(
    data: Path, stage_one: Path, policy: Path, tmp_path: Path
) -> None:
    check_that_tuning_repeats(data, stage_one, policy, tmp_path, task="panoptic")


def test_predictions_are_pictures_and_official_files(
    data: Path, policy: Path, tmp_path: Path
) -> None:
    runner = CliRunner()
    output = tmp_path / "out"
    result = runner.invoke(
        app, ["predict", str(policy), "--data", str(data / "holdout"), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    assert len(list(output.glob("*.png"))) == 6
    evaluated = runner.invoke(app, ["evaluate", str(policy), "--data", str(data / "holdout")])
    figures = json.loads(evaluated.stdout)
    coco = data / "scenes" / "coco" / "holdout"
    scored = runner.invoke(
        app,
        [
            "score",
            "panoptic",
            str(output / "panoptic.json"),
            "--annotations",
            str(coco / "panoptic.json"),
        ],
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["All"]["pq"] == figures["pq"]


def test_plain_pictures_are_drawn_without_annotation(
    data: Path, policy: Path, tmp_path: Path
) -> None:
    images, output = data / "scenes" / "coco" / "holdout" / "images", tmp_path / "out"
    result = CliRunner().invoke(
        app, ["predict", str(policy), "--images", str(images), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    assert len(json.loads((output / "panoptic.json").read_text())["annotations"]) == 6
