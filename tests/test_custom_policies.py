"""docs/custom_policies.md: a policy from outside, by the code and commands as they stand there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rewardtune.config.run_config import RunConfig
from rewardtune.policies.policy_file import load_policy
from tests.tutorial import commands, do, of_fewer_scenes, printed, write_configs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "custom_policies.md").read_text(encoding="utf-8")
MODULE = "examples/policies/conv_gru.py"
# What takes long on whatever runs this test; everything else is as printed.
SMALLER = {
    "conv_gru_mle.toml": {
        "num_steps = 2_000": "num_steps = 40",
        "log_every = 100": "log_every = 20",
    },
    "conv_gru_recall.toml": {
        "num_steps = 300": "num_steps = 3",
        "warmup = 20": "warmup = 1",
        "cooldown = 200": "cooldown = 1",
        "batch_size = 64": "batch_size = 32",
        "log_every = 10": "log_every = 1",
    },
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but what the page begins with and makes: its code, configs, data and runs."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / MODULE).parent.mkdir(parents=True)
    (folder / MODULE).write_text(printed(PAGE, "python")[MODULE])
    write_configs(folder, PAGE, SMALLER)
    data, *rest = commands(PAGE)
    do(folder, [of_fewer_scenes(data), *rest])
    return folder


def steps(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def test_the_page_prints_the_module_and_nothing_else() -> None:
    assert printed(PAGE, "python") == {MODULE: (ROOT / MODULE).read_text()}
    assert printed(PAGE, "toml").keys() == SMALLER.keys()


def test_the_policy_learns_and_its_file_brings_it_back(clone: Path) -> None:
    run = clone / "runs/conv_gru_mle"
    first, last = steps(run)
    assert last["loss"] < first["loss"]
    policy = load_policy(run / "policy.safetensors").policy
    assert policy.kind == "conv_gru:ConvGru"
    assert policy.config.model_dump() == {
        "vocab_size": 1014,
        "sequence_length": 12,
        "input_size": 48,
        "width": 128,
        "channels": 16,
    }


def test_it_is_tuned_and_its_source_is_identity(clone: Path) -> None:
    run = clone / "runs/conv_gru_recall"
    told = steps(run)
    assert [step["step"] for step in told] == [1, 2, 3]
    # What was drawn at staleness 0 has the log-probs that the learner finds.
    assert told[0]["staleness"] == 0 and told[0]["log_prob_gap"] < 1e-5
    config = RunConfig.model_validate_json((run / "config.json").read_text())
    kind = config.identity()["policy"]["kind"]
    assert kind.startswith("conv_gru:ConvGru@") and len(kind) > 60
