"""CONTRIBUTING.md and its helpers against the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = (
    *("task", "reward", "loss term", "model family", "queue backend", "metric", "command"),
    *("data format", "config key", "picture"),
)
HOOKS: list[dict[str, Any]] = yaml.safe_load(
    (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
)["repos"]


def rows() -> list[list[str]]:
    section = TEXT.partition("## Where a change goes\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def paths_in(cell: str) -> list[str]:
    return re.findall(r"`([\w./-]+)`", cell)


def test_the_table_is_of_the_ten_changes_that_people_make() -> None:
    assert [row[0] for row in rows()] == list(CHANGES)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_every_row_names_one_room_and_two_or_three_files_of_it(row: list[str]) -> None:
    _, room, files, elsewhere = row
    (folder,) = paths_in(room)
    assert folder.endswith("/") and (ROOT / folder / "__init__.py").is_file()
    assert 2 <= len(paths_in(files)) <= 3
    missing = [name for name in paths_in(files) if not (ROOT / folder / name).is_file()]
    assert missing == []
    for name in paths_in(elsewhere):
        if "/" in name:
            assert (ROOT / name).exists(), name


def test_every_file_that_the_text_names_is_there() -> None:
    named = {
        name
        for name in paths_in(TEXT)
        if "/" in name and "mytask" not in name and name.split("/")[0] in _top_level()
    }
    assert "rewardtune/policies/policy.py" in named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_hooks_take_what_they_need_from_the_projects_own_environment() -> None:
    (local,) = HOOKS
    assert local["repo"] == "local"
    hooks = {hook["id"]: hook for hook in local["hooks"]}
    assert list(hooks) == ["ruff", "ruff-format", "mypy", "lint-imports", "subject"]
    assert {hook["language"] for hook in hooks.values()} == {"system"}
    for name, hook in hooks.items():
        if name != "subject":
            assert hook["entry"].startswith(".venv/bin/")


@pytest.mark.parametrize(("length", "code"), [(72, 0), (73, 1)])
def test_a_subject_line_has_at_most_72_characters(length: int, code: int, tmp_path: Path) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text("x" * length + "\n\n" + "y" * 90 + "\n")
    (entry,) = [hook["entry"] for hook in HOOKS[0]["hooks"] if hook["id"] == "subject"]
    done = subprocess.run(
        f"{entry} {message}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert (f"the subject has {length} characters" in done.stderr) is (code == 1)


def _top_level() -> set[str]:
    return {path.name for path in ROOT.iterdir()}
