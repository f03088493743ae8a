from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.digest import ScorerSettings, function_sources, run_sources
from reward_workers.scoring.resolved import resolve
from tests.reward_workers.scoring_run import USER_FOLDER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the user's modules, and the number that one of them reads."""
    copy = tmp_path / "modules"
    shutil.copytree(USER_FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "value").write_text("3")
    others = [path for path in sys.path if path != str(USER_FOLDER)]
    monkeypatch.setattr(sys, "path", [*others, str(copy)])
    return copy


def fixed(path: Path) -> RewardConfig:
    part = {"use": "values_by_token:FromFile", "options": {"path": str(path)}}
    return RewardConfig.model_validate({"sum": {"fixed": 1}, "parts": {"fixed": part}})


def digest(reward: RewardConfig, **told: Any) -> str:
    return resolve("by_token", {}, reward, **told).digest(scorer=ScorerSettings())


def found_contents(task: str, reward: RewardConfig | None) -> Mapping[str, str]:
    return resolve(task, {}, reward).contents


def test_contents_stand_for_functions_and_their_files(folder: Path) -> None:
    contents = found_contents("by_token", fixed(folder / "value"))
    use, path = (contents[f"reward.parts.fixed.{key}"] for key in ("use", "options.path"))
    assert len(contents) == 3
    assert contents["task"].startswith("by_token@")
    assert use.startswith("values_by_token:FromFile@") and path.startswith("sha256:")


def test_a_moved_file_is_the_same_and_a_changed_one_is_not(folder: Path) -> None:
    before = digest(fixed(folder / "value"))
    (folder / "value").rename(folder / "elsewhere")
    assert digest(fixed(folder / "elsewhere")) == before
    (folder / "elsewhere").write_text("4")
    assert digest(fixed(folder / "elsewhere")) != before


def test_editing_the_users_task_makes_it_another_run(folder: Path) -> None:
    before = found_contents("by_token", None)
    source = folder / "by_token.py"
    source.write_text(source.read_text() + "# edited\n")
    after = found_contents("by_token", None)
    assert before.keys() == after.keys() == {"task"}
    assert before != after


def test_another_version_of_a_task_of_ours_is_not_another_run() -> None:
    assert found_contents("detection", None) == {}


def test_editing_the_function_changes_contents_and_digest(folder: Path) -> None:
    reward = RewardConfig.model_validate("values_by_token:largest")
    contents, before = found_contents("by_token", reward), digest(reward)
    source = folder / "values_by_token.py"
    source.write_text(source.read_text() + "# edited\n")
    assert found_contents("by_token", reward) != contents
    assert digest(reward) != before


def test_how_parts_compose_is_part_of_the_digest(folder: Path) -> None:
    one, two = (
        RewardConfig.model_validate(
            {"sum": {"a": weight}, "parts": {"a": {"use": "values_by_token:largest"}}}
        )
        for weight in (1.0, 2.0)
    )
    assert digest(one) != digest(two)
    assert "reward_workers.scoring.compose" in run_sources("by_token", one)
    assert not any("compose" in name for name in run_sources("by_token", None))


def test_a_function_is_covered_with_the_neighbours_that_it_imports(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import words\nimport numpy\nimport rewardtune.datasets.view\n"
    )
    (tmp_path / "words.py").write_text("A = 1\n")
    (tmp_path / "unused.py").write_text("A = 1\n")
    found = function_sources("mine:f", search_path=[str(tmp_path)])
    assert {"mine", "words", "rewardtune.datasets.view"} <= found.keys()
    assert "unused" not in found and "numpy" not in found


def test_a_module_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match="reward 'nowhere:f': there is no module nowhere with a"):
        function_sources("nowhere:f")
