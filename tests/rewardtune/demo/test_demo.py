from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import Split
from rewardtune.demo.demo import run_demo
from rewardtune.demo.table import DEMOS
from rewardtune.run.local import pretrain, tune
from rewardtune.run.result import RunResult
from tests.rewardtune.tiny_run import SILENT, tiny_config, tiny_tune

NUM_SCENES: dict[Split, int] = {"train": 16, "holdout": 6, "validation": 10}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("demo")
    write_digits(folder / "digits", num_scenes=NUM_SCENES)
    checkpoint = pretrain(tiny_config(folder / "digits", folder / "mle"), SILENT).policy_path
    evaluation = {"score_rule": "p2", "every_steps": 2}
    return tiny_tune(
        folder / "digits",
        checkpoint,
        folder / "elsewhere",
        learner={"num_steps": 4},
        evaluation=evaluation,
    )


def run(config: RunConfig, directory: Path, **more: Any) -> tuple[dict[str, Any] | None, str]:
    text = io.StringIO()
    console = Console(file=text, width=100)
    told = {"tune": tune, **more}
    demo = replace(DEMOS["detection"], num_scenes=NUM_SCENES)
    summary = run_demo(config, directory=directory, demo=demo, console=console, **told)
    return summary, text.getvalue()


def test_the_demo_measures_tunes_measures_and_draws(config: RunConfig, tmp_path: Path) -> None:
    summary, shown = run(config, tmp_path / "demo")
    assert summary is not None
    assert list(summary) == [
        *("task", "map_before", "map_after", "ar100_before", "ar100_after"),
        *("reward_before", "reward_after", "seconds"),
    ]
    assert summary["task"] == "detection" and summary["seconds"] > 0
    assert json.loads((tmp_path / "demo" / "summary.json").read_text()) == summary
    assert "10 scenes of digits never seen in training" in shown
    for name in ("curves.png", "pictures.png"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert picture.width > 800
    for when in ("before", "after"):
        results = tmp_path / "demo" / f"results_{when}" / "results.json"
        assert isinstance(json.loads(results.read_text()), list)
    assert (tmp_path / "demo" / "run" / "config.json").exists()
    assert not config.operations.directory.exists()

    again, _ = run(config, tmp_path / "demo")
    assert again is not None, "an earlier demo is no obstacle"
    assert {**again, "seconds": 0} == {**summary, "seconds": 0}


def test_fresh_scenes_come_from_the_seed(config: RunConfig, tmp_path: Path) -> None:
    summary, shown = run(config, tmp_path / "demo", scenes_seed=7)
    fresh = config.data.train.parent.with_name("digits-seed-7")
    assert summary is not None
    assert f"wrote 10 digit scenes to {fresh}" in shown
    assert sorted(path.name for path in fresh.iterdir()) == ["coco", "digits.json", "validation"]
    shutil.rmtree(fresh)


def test_a_demo_that_is_stopped_reports_nothing(config: RunConfig, tmp_path: Path) -> None:
    stopped = RunResult(
        directory=tmp_path, policy_path=tmp_path / "policy", metrics={}, is_finished=False
    )
    summary, shown = run(config, tmp_path / "demo", tune=lambda *_: stopped)
    assert summary is None and "stopped before the end" in shown


def test_a_config_that_does_not_tune_is_refused(config: RunConfig, tmp_path: Path) -> None:
    pretraining = tiny_config(config.data.train.parent, tmp_path / "mle")
    with pytest.raises(ConfigError, match="mode = 'tune'"):
        run(pretraining, tmp_path / "demo")
