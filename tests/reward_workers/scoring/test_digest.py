from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from reward_workers.scoring.digest import ROOT, ScorerSettings, reward_digest, scoring_sources

SETTINGS = ScorerSettings()


def digest(task: str, folder: Path, options: dict[str, Any] | None = None) -> str:
    return reward_digest(task, options or {}, scorer=SETTINGS, search_path=[str(folder)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's folder: a package of two files, a neighbour it imports and one it does not."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from mine.reward import TASK\n")
    (tmp_path / "mine" / "reward.py").write_text("import words\nfrom . import parts\nTASK = 1\n")
    (tmp_path / "mine" / "parts.py").write_text("import numpy\nimport rewardtune.datasets.view\n")
    (tmp_path / "mine" / "unused.py").write_text("A = 1\n")
    (tmp_path / "words.py").write_text("WORDS = ['a']\n")
    (tmp_path / "elsewhere.py").write_text("B = 1\n")
    return tmp_path


def test_detection_is_covered_by_its_folder_and_by_what_it_imports_of_ours() -> None:
    sources = scoring_sources("detection")
    folder = {
        f"rewardtune.tasks.detection.{path.stem}"
        for path in (ROOT / "rewardtune/tasks/detection").glob("[!_]*.py")
    }
    assert folder | {"rewardtune.tasks.detection"} <= sources.keys()
    assert {
        "rewardtune.datasets.frame",
        "rewardtune.datasets.example",
        "rewardtune.records.group",
        "reward_workers.scoring.score",
    } <= sources.keys()
    # What neither the task nor the scoring of a group imports plays no part.
    assert (
        not {
            "rewardtune.datasets.digits.scenes",
            "rewardtune.datasets.order",
            "reward_workers.worker",
        }
        & sources.keys()
    )
    assert not any(name.startswith(("rewardtune.transport", "numpy")) for name in sources)


def test_a_users_package_is_covered_whole_with_the_neighbours_it_imports(folder: Path) -> None:
    sources = scoring_sources("mine", search_path=[str(folder)])
    theirs = {name for name in sources if not name.startswith(("rewardtune.", "reward_workers"))}
    assert theirs == {"mine", "mine.reward", "mine.parts", "mine.unused", "words"}
    assert {"rewardtune.datasets.frame", "rewardtune.records.group"} <= sources.keys()


@pytest.mark.parametrize("file", ["mine/reward.py", "mine/unused.py", "words.py"])
def test_editing_a_scoring_source_changes_the_digest(folder: Path, file: str) -> None:
    before = digest("mine", folder)
    (folder / file).write_text((folder / file).read_text() + "# edited\n")
    assert digest("mine", folder) != before


def test_editing_what_is_not_imported_does_not(folder: Path) -> None:
    before = digest("mine", folder)
    (folder / "elsewhere.py").write_text("B = 2\n")
    (folder / "mine" / "notes.txt").write_text("not a source")
    assert digest("mine", folder) == before


def test_a_copy_of_the_same_sources_elsewhere_has_the_same_digest(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("image") / "rebuilt"
    shutil.copytree(folder, copy)
    (copy / "mine" / "__pycache__").mkdir()
    assert digest("mine", copy) == digest("mine", folder)


def test_an_installed_task_does_not_draw_in_its_neighbours(folder: Path) -> None:
    installed = folder / "site-packages"
    installed.mkdir()
    for name in ("mine", "words.py"):
        (folder / name).rename(installed / name)
    sources = scoring_sources("mine", search_path=[str(installed)])
    assert "mine.parts" in sources and "words" not in sources


def test_a_task_of_one_file_is_covered_with_what_it_imports(folder: Path) -> None:
    (folder / "boxes.py").write_text(
        "from rewardtune.tasks.detection.task import DetectionTask as TASK\n"
    )
    sources = scoring_sources("boxes", search_path=[str(folder)])
    assert {
        "boxes",
        "rewardtune.tasks.detection.kernel",
        "rewardtune.tasks.detection.definition",
    } <= sources.keys()
    assert "mine" not in sources


def test_a_module_of_the_users_never_stands_for_a_task_of_ours(folder: Path) -> None:
    (folder / "detection.py").write_text("TASK = None\n")
    assert digest("detection", folder) == reward_digest("detection", {}, scorer=SETTINGS)


def test_options_count_but_not_their_order(folder: Path) -> None:
    one = digest("mine", folder, {"a": 1, "b": [1.5, {"c": "d"}]})
    assert one == digest("mine", folder, {"b": [1.5, {"c": "d"}], "a": 1})
    assert one != digest("mine", folder, {"a": 2, "b": [1.5, {"c": "d"}]})


def test_threads_count() -> None:
    one, two = (
        reward_digest("detection", {}, scorer=ScorerSettings(threads=threads)) for threads in (1, 2)
    )
    assert one != two


def test_options_that_are_not_json_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="options of task 'mine' are not JSON"):
        digest("mine", folder, {"a": float("nan")})
    with pytest.raises(ValueError, match="options of task 'mine' are not JSON"):
        digest("mine", folder, {"a": folder})


def test_a_task_that_is_not_there_is_an_error(folder: Path) -> None:
    for name in ("poetry", "mine.poetry", "tasks.poetry"):
        with pytest.raises(
            ValueError, match=f"task '{name}' is neither a folder of rewardtune/tasks/"
        ):
            digest(name, folder)
