"""What the README says is run as it stands there."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rewardtune.cli.app import app
from rewardtune.config.config_file import load_config
from rewardtune.run.local import pretrain, tune
from rewardtune.run.log import open_run_log
from tests.rewardtune.tiny_run import SILENT, tiny_config, tiny_tune, write_tiny_digits

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_block(first_line: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(first_line)]
    return str(found)


def test_the_reward_of_your_own_tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = code_block("# fewer.py")
    (settings,) = re.findall(r"```toml\n(\[reward\].*?)```", README, flags=re.DOTALL)
    assert (code + settings).count("\n") < 20
    (tmp_path / "fewer.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "fewer", raising=False)
    data = write_tiny_digits(tmp_path / "digits")
    start = pretrain(tiny_config(data, tmp_path / "mle"), SILENT).policy_path
    config = tiny_tune(data, start, tmp_path / "tuned", **tomllib.loads(settings))
    with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
        assert tune(config, log).is_finished
    lines = (tmp_path / "tuned" / "log.jsonl").read_text().splitlines()
    assert all("reward_fee" in line for line in lines if '"kind": "step"' in line)


@pytest.mark.parametrize(
    "command", re.findall(r"^    \.venv/bin/rewardtune (.*)$", README, flags=re.MULTILINE)
)
def test_every_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command)
    verbs = words[: 2 if words[0] in ("data", "reward") else 1]
    shown = CliRunner().invoke(app, [*verbs, "--help"])
    assert shown.exit_code == 0
    for word in words:
        assert not word.startswith("--") or word in shown.stdout


def test_every_config_it_names_can_be_read() -> None:
    named = set(re.findall(r"configs/[\w/]+\.toml", README))
    assert named
    for path in named:
        load_config(ROOT / path)
