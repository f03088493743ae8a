"""docs/moved.md: every file of before the move has a place now, by a row or by a folder's rule."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "moved.md").read_text(encoding="utf-8")
ROWS: list[tuple[str, str]] = re.findall(
    r"^\| `([\w./*-]+)` \| `([\w./-]+)` \|$", PAGE, re.MULTILINE
)
# Of commit 36a8acc: all programs and modules but tests, records, configs and shipped policies.
BEFORE = (ROOT / "tests/fixtures/files_before_the_move.txt").read_text().split()


def place_of(path: str) -> str | None:
    """Where the page says that a file of before is; the row that says most about it counts."""
    exact = {old: new for old, new in ROWS if not old.endswith(("/", "*"))}
    if path in exact:
        return exact[path]
    folders = [(old, new) for old, new in ROWS if old.endswith("/") and path.startswith(old)]
    patterns = [(old, new) for old, new in ROWS if old.endswith("*") and fnmatch(path, old)]
    if patterns:  # the first that fits, as the page says
        return patterns[0][1] + Path(path).name
    for old, new in sorted(folders, key=lambda row: len(row[0]), reverse=True):
        return new + path.removeprefix(old)
    return None


def test_what_a_row_leads_to_is_there() -> None:
    assert len(ROWS) > 250
    for old, new in ROWS:
        assert old.endswith(("/", "*")) == new.endswith("/"), old
        assert (ROOT / new).is_dir() if new.endswith("/") else (ROOT / new).is_file(), new


def test_no_path_has_two_rows() -> None:
    olds = [old for old, _ in ROWS]
    assert sorted(set(olds)) == sorted(olds)


def test_every_file_of_before_is_where_the_page_says() -> None:
    assert len(BEFORE) > 500
    gone = {name for name in BEFORE if f"`{Path(name).stem}`" in PAGE}
    lost = [
        f"{name} -> {place_of(name)}"
        for name in BEFORE
        if name not in gone and not (ROOT / (place_of(name) or "nowhere")).is_file()
    ]
    assert lost == []


def test_only_logs_that_the_page_names_are_gone() -> None:
    gone = [name for name in BEFORE if f"`{Path(name).stem}`" in PAGE]
    assert len(gone) == 11
    assert all(name.startswith("configs/logs/trial_") for name in gone)
    assert [name for name in gone if (ROOT / (place_of(name) or "")).is_file()] == []
