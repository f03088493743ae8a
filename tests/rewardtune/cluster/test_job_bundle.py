"""What a custom reward adds to a job; the rest is tested where jobs are submitted."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from rewardtune.cluster.job_bundle import entrypoint, write_code
from rewardtune.config.run_config import ConfigError, RunConfig
from tests.rewardtune.tiny_run import tiny_tune

SOURCE = """
from pathlib import Path
import my_numbers

class Fixed:
    @staticmethod
    def artefacts(options):
        return {"table": Path(options["table"])}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    (tmp_path / "my_reward").mkdir()
    (tmp_path / "my_reward" / "__init__.py").write_text("")
    (tmp_path / "my_reward" / "fixed.py").write_text(SOURCE)
    (tmp_path / "my_numbers.py").write_text("ONE = 1\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    part = {"use": "my_reward.fixed:Fixed", "options": {"table": "tables/one"}}
    return tiny_tune(
        tmp_path / "data",
        tmp_path / "policy",
        tmp_path / "run",
        reward={"sum": {"a": 1}, "parts": {"a": part}},
    )


def test_the_modules_of_a_reward_travel_and_may_be_copied_again(
    config: RunConfig, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    for _ in range(2):
        write_code(code, config)
    found = {str(path.relative_to(code)) for path in code.rglob("*.py")}
    assert found == {"my_reward/__init__.py", "my_reward/fixed.py", "my_numbers.py"}


def test_a_policy_from_outside_travels_too(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text("import my_numbers\n")
    kind = {"kind": "my_net:Net"}
    with_policy = tiny_tune(tmp_path / "d", tmp_path / "p", tmp_path / "r", policy=kind)
    code = tmp_path / "code"
    write_code(code, with_policy)
    assert {path.name for path in code.rglob("*.py")} == {"my_net.py", "my_numbers.py"}
    elsewhere = {"kind": "not_here:Net"}
    lost = tiny_tune(tmp_path / "d", tmp_path / "p", tmp_path / "r", policy=elsewhere)
    with pytest.raises(ConfigError, match="policy.kind = 'not_here:Net': there is no module"):
        write_code(code, lost)


def test_a_run_can_be_gone_on_with_from_its_own_copy(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    write_code(code, config)
    before = (code / "my_reward" / "fixed.py").read_text()
    others = [path for path in sys.path if path != str(tmp_path)]
    monkeypatch.setattr(sys, "path", [*others, str(code)])
    write_code(code, config)
    assert (code / "my_reward" / "fixed.py").read_text() == before


def test_files_that_a_reward_names_are_given_by_absolute_paths(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(entrypoint(config, []))
    assert f'reward.parts.a.options.table="{tmp_path}/tables/one"' in words


def test_a_reward_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    config = tiny_tune(tmp_path, tmp_path / "policy", tmp_path / "run", reward="nowhere:f")
    with pytest.raises(ConfigError, match="reward 'nowhere:f': there is no module nowhere"):
        write_code(tmp_path / "code", config)
