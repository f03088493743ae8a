"""Whole sweeps with real processes, of a detector that runs in a second."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rewardtune.cli.app import STOPPED, app
from rewardtune.cli.ending import BAD_INPUT
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.evaluation.predict import policy_for_data
from rewardtune.run.local import pretrain, tune
from rewardtune.run.log import LOG_NAME, read_run_log
from rewardtune.sweep.config import load_sweep
from rewardtune.sweep.process import rollout_reward, run_seconds
from tests.rewardtune.tiny_run import SILENT, tiny_config, weight_digest, write_tiny_digits

pytestmark = pytest.mark.alone

BASE = """
task = "detection"
mode = "tune"
task_options = {{ max_boxes = 3 }}
reward = "tests.rewardtune.stops_the_sweep:many_boxes"
data = {{ train = "{0}/train", holdout = "{0}/holdout", validation = "{0}/validation" }}
policy = {{ checkpoint = "start.safetensors" }}
sampler = {{ num_samples = 2, micro_batch = 4 }}
compute = {{ device = "cpu", threads = 1 }}
evaluation = {{ every_steps = 6 }}

[learner]
batch_size = 4
micro_batch = 4
num_steps = 12
optimizer = {{ kind = "adamw", learning_rate = 1e-2 }}
"""
SWEEP = """
config = "base.toml"
metrics = ["boxes_per_image", "map", "rollout_reward"]
num_seeds = 1

[rows]
one = ["sampler.num_samples=2"]
all = ["learner.estimator=leave_one_out"]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_digits(tmp_path_factory.mktemp("digits"))
    changes = {"compute": {"threads": 1}, "learner": {"num_steps": 60}}
    pretrain(tiny_config(folder, folder / "mle", **changes), SILENT)
    return folder


@pytest.fixture
def folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text(BASE.format(data))
    (tmp_path / "trial.toml").write_text(SWEEP)
    shutil.copyfile(data / "mle" / "policy.safetensors", tmp_path / "start.safetensors")
    return tmp_path


def sweep(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "trial.toml", *arguments])


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "runs" / "trial" / "records.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_sweep_is_stopped_goes_on_and_comes_to_what_plain_runs_come_to(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOPS_THE_SWEEP", str(folder / "stopped"))
    stopped = sweep("--jobs", "2")
    assert stopped.exit_code == STOPPED, stopped.output
    assert "the same command continues runs/trial" in stopped.stderr
    assert (folder / "stopped").exists() and not (folder / "runs/trial/table.md").exists()

    finished = sweep("--jobs", "2")
    assert finished.exit_code == 0, finished.output
    table = (folder / "runs/trial/table.md").read_text()
    assert finished.stdout == table
    assert (folder / "runs/trial/curves.png").stat().st_size > 10_000
    by_row = {line["row"]: line for line in lines(folder)}
    assert by_row.keys() == {"one", "all"} and len(lines(folder)) == 2
    assert len(list((folder / "runs/trial/starts").iterdir())) == 1, "measured once for both"
    runs = {row: folder / "runs/trial" / row / "0" for row in by_row}
    stopped_row = next(row for row in by_row if len(list((runs[row] / "terms").iterdir())) == 2)
    line = by_row[stopped_row]

    config = load_sweep(Path("trial.toml")).run_config(stopped_row, 0)
    operations = config.operations.model_copy(update={"directory": folder / "undisturbed"})
    undisturbed = tune(config.model_copy(update={"operations": operations}), SILENT).directory
    swept = runs[stopped_row] / "policy.safetensors"
    assert weight_digest(swept) == weight_digest(undisturbed / "policy.safetensors")
    evaluations = json.loads((undisturbed / "evaluations.json").read_text())
    assert line["evaluations"] == evaluations
    assert [each["step"] for each in evaluations] == [0, 6, 12]

    validation = open_dataset(data / "validation")

    def measured(path: Path) -> dict[str, float]:
        ready = policy_for_data(path, validation, threads=1)
        indices = range(len(validation))
        return dict(evaluate_policy(ready.policy, ready.task, validation, indices=indices).metrics)

    before, after = measured(folder / "start.safetensors"), measured(swept)
    assert after["boxes_per_image"] != before["boxes_per_image"]
    rollouts = rollout_reward(read_run_log(runs[stopped_row] / LOG_NAME).steps, 12)
    assert line["before"] == before and line["after"] == {**after, "rollout_reward": rollouts}
    assert (line["num_steps"], line["num_samples"], line["samples_per_step"]) == (12, 96, 8)
    assert line["seconds"] > 0 and "1 threads, torch" in line["machine"]
    figures = [before["boxes_per_image"], after["boxes_per_image"], after["map"], rollouts]
    cells = " | ".join(f"{figure:.4f}" for figure in figures)
    assert f"| {stopped_row} | 1 | 12 | 96 | {cells} |" in table

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is done")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    again = sweep()
    assert (again.exit_code, again.stdout) == (0, table)
    listed = sweep("--dry-run")
    assert "2 runs, 2 finished; 0 samples" in listed.stdout

    # Another seed is wanted, but the file that all runs start from holds something else now.
    (folder / "trial.toml").write_text(SWEEP.replace("num_seeds = 1", "num_seeds = 2"))
    shutil.copyfile(swept, folder / "start.safetensors")
    refused = sweep()
    assert refused.exit_code == BAD_INPUT
    assert "made when a data set, the checkpoint or a file" in refused.stderr


def test_a_run_that_fails_is_one_line_and_the_metric_is_checked_first(folder: Path) -> None:
    text = SWEEP.replace("all = [", 'all = ["reward=tests.rewardtune.stops_the_sweep:broken", ')
    (folder / "trial.toml").write_text(text.replace('one = ["sampler.num_samples=2"]', ""))
    failed = sweep()
    assert failed.exit_code == 1, failed.output
    first = failed.stderr.splitlines()[0]
    assert first.startswith("error: run all/0 ended with exit code 1:")
    assert "is beyond me" in first and "output.txt" in first
    assert not (folder / "runs/trial/records.jsonl").exists()

    (folder / "trial.toml").write_text(SWEEP.replace('"map"', '"pq"'))
    refused = sweep()
    assert refused.exit_code == BAD_INPUT
    assert refused.stderr.startswith("error: metrics has 'pq', which this task does not measure")
    assert refused.stderr.count("\n") == 1


def test_figures_of_a_run_come_from_its_logged_steps() -> None:
    steps = [{"step": step, "reward": float(step), "seconds": 2.0} for step in range(5, 101, 5)]
    assert rollout_reward(steps, 100) == pytest.approx((85 + 90 + 95 + 100) / 4)
    assert run_seconds(steps, 100) == pytest.approx(200.0)
    assert math.isnan(rollout_reward([], 100)) and math.isnan(run_seconds([], 100))
