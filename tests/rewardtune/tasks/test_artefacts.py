from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rewardtune.tasks.artefacts import (
    artefact_digest,
    found_artefacts,
    named_artefacts,
    with_options,
)
from rewardtune.tasks.task import find_task, load_task

TASK = """
from pathlib import Path

class TASK:
    def __init__(self, options, *, categories):
        self.options = options

    @staticmethod
    def artefacts(options):
        return {"words.path": Path(options["words"]["path"])}
"""


@pytest.fixture
def _task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task_with_a_file.py").write_text(TASK)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])


class Names:
    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        return {"a": Path(options["a"])} if "a" in options else {"b": Path("b")}


def test_an_artefact_is_an_option(tmp_path: Path) -> None:
    assert named_artefacts(Names, {"a": "x/y"}, of="it") == {"a": Path("x/y")}
    assert named_artefacts(object, {"a": "x/y"}, of="it") == {}
    with pytest.raises(ValueError, match="it names an artefact 'b' that its options do not have"):
        named_artefacts(Names, {}, of="it")


def test_a_folder_of_copies_is_looked_in_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copies = tmp_path / "copies"
    for path in (Path("x/file"), copies / "x/file", copies / "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")

    def found(folder: Path | None) -> Path:
        return found_artefacts({"a": Path("x/file")}, folder=folder, of="it")["a"]

    assert found(None) == tmp_path / "x/file"
    assert found(copies) == copies / "x/file"
    (copies / "x/file").unlink()
    assert found(copies) == copies / "file"
    (copies / "file").unlink()
    assert found(copies) == tmp_path / "x/file"
    Path("x/file").unlink()
    with pytest.raises(ValueError, match="it needs a = x/file, which is not on this machine"):
        found(copies)


def test_a_digest_is_of_what_is_there_and_not_of_where_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"123")
    (folder / "config").write_bytes(b"4")
    before = artefact_digest(folder)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / ".cache").mkdir()
    (tmp_path / "copy" / ".cache" / "lock").write_text("")
    assert artefact_digest(tmp_path / "copy") == before
    (tmp_path / "copy" / "config").rename(tmp_path / "copy" / "configuration")
    assert artefact_digest(tmp_path / "copy") != before
    (folder / "deep" / "weights").write_bytes(b"124")
    assert artefact_digest(folder) != before


def test_options_are_changed_at_any_depth_and_the_original_is_left_alone() -> None:
    options = {"a": {"b": 1, "c": 2}, "d": 3}
    assert with_options(options, {"a.b": 9}) == {"a": {"b": 9, "c": 2}, "d": 3}
    assert options == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.usefixtures("_task")
def test_a_task_is_given_the_path_that_was_found(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("one two")
    options = {"words": {"path": "elsewhere/words", "most": 2}}
    with pytest.raises(ValueError, match="task 'task_with_a_file' needs words.path = elsewhere/w"):
        load_task("task_with_a_file", options, categories=())
    task: Any = load_task("task_with_a_file", options, categories=(), artefacts=tmp_path)
    assert task.options == {"words": {"path": str(tmp_path / "words"), "most": 2}}
    found = find_task("task_with_a_file", options, artefacts=tmp_path)
    assert found.files == {"words.path": tmp_path / "words"}
