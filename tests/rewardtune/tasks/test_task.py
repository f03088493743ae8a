from pathlib import Path

import pytest

from rewardtune.datasets.example import Category
from rewardtune.tasks.task import load_task

CATEGORIES = (Category(id=1, name="one", num_instances=3),)


def test_a_task_of_the_project_loads_by_name() -> None:
    task = load_task("detection", {"max_boxes": 2}, categories=CATEGORIES)
    assert (task.name, task.vocabulary.max_tokens) == ("detection", 12)


def test_a_module_of_the_user_s_loads_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from rewardtune.tasks.detection.task import DetectionTask as TASK\n"
    (tmp_path / "my_boxes.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_task("my_boxes", {}, categories=CATEGORIES).name == "detection"


def test_a_task_that_is_not_there_says_where_it_was_looked_for() -> None:
    with pytest.raises(ValueError, match="'poetry' is neither a folder of rewardtune/tasks/ nor"):
        load_task("poetry", {}, categories=CATEGORIES)


def test_an_import_that_fails_inside_a_task_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        load_task("needs_more", {}, categories=CATEGORIES)


def test_a_module_without_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match="has no TASK"):
        load_task("json", {}, categories=CATEGORIES)
