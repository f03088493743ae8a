"""The configs of the digit scenes' dense tasks fit one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.config.config_file import load_config
from rewardtune.stage_one.config import load_stage_one_config

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.mark.parametrize("task", ["panoptic", "colorization"])
def test_stage_one_policy_and_tuning_fit(task: str) -> None:
    stage_one = load_stage_one_config(CONFIGS / f"digits_{task}_stage_one.toml")
    mle = load_config(CONFIGS / f"digits_{task}_mle.toml")
    tune = load_config(CONFIGS / f"digits_{task}_tune.toml")
    assert stage_one.task == mle.task == tune.task == task
    assert mle.policy.input_size == stage_one.network.input_size
    assert mle.task_options["stage_one"] == tune.task_options["stage_one"]
    assert stage_one.data.train == mle.data.train == tune.data.train
    assert tune.task_options["decode_batch"] == tune.sampler.num_samples


PATHS = sorted(p for t in ("panoptic", "colorization") for p in CONFIGS.glob(f"digits_{t}_*.toml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_config_says_command_hardware_and_results(path: Path) -> None:
    lines = path.read_text().splitlines()
    opening = [line for line in lines[: lines.index("")] if line.startswith("#")]
    for field in ("command", "hardware", "expected", "reached"):
        assert sum(line.startswith(f"# {field}:") for line in opening) == 1
    assert f"configs/{path.name}" in "".join(opening)
