"""That ``bench.digest`` finds a changed bit, and runs the code that it says it runs."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from bench import commit, digest
from bench.commit import ROOT, CommitError, checked_out
from bench.digest import Row, compared, digests, table
from tests.faults.crash_runs import KINDS

ONE, OTHER = "ab" * 32, "ab" * 31 + "ac"


def test_one_bit_is_a_difference_and_so_is_a_run_that_one_side_lacks() -> None:
    rows = compared({"demo": ONE, "new": ONE}, {"demo": OTHER, "old": ONE})
    assert rows == [Row("demo", ONE, OTHER), Row("new", ONE, ""), Row("old", "", ONE)]
    assert not any(row.is_equal for row in rows)
    assert [row.is_equal for row in compared({"demo": ONE}, {"demo": ONE})] == [True]


def test_the_table_shows_both_sides() -> None:
    written = io.StringIO()
    rows = compared({"demo": ONE, "new": ONE}, {"demo": ONE})
    Console(file=written, width=100).print(table(rows, against="36a8acc"))
    lines = [line.split() for line in written.getvalue().splitlines() if "│" in line]
    assert [[word for word in line if word != "│"] for line in lines] == [
        ["demo", ONE[:12], ONE[:12], "yes"],
        ["new", ONE[:12], "none", "NO"],
    ]


@pytest.mark.parametrize(("theirs", "code"), [(ONE, 0), (OTHER, 1)])
def test_the_exit_code_says_whether_all_is_equal(
    theirs: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = {ROOT: ONE}
    monkeypatch.setattr(digest, "digests", lambda name, root: {name: sides.get(root, theirs)})
    monkeypatch.setattr(commit, "_git", lambda *arguments: "")
    assert digest.main(["--against", "HEAD", "--runs", "demo", "detection"]) == code


def test_every_crash_equivalence_run_is_compared_at_its_own_length() -> None:
    own = {name: kind.num_steps for name, kind in KINDS.items()}
    assert {"demo": 20, **own} == digest.NUM_STEPS


def test_a_run_has_a_digest_at_each_depth() -> None:
    found = digests("detection", ROOT, num_steps=2)
    assert list(found) == ["detection, depth 0", "detection, depth 1"]
    assert all(len(each) == 64 for each in found.values())
    # Two steps at depth 1 draw the second batch with older weights.
    assert len(set(found.values())) == 2


def test_code_from_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rewardtune").symlink_to(ROOT / "rewardtune")
    (tmp_path / "learner").symlink_to(ROOT / "learner")
    with pytest.raises(CommitError, match=r"'rewardtune\S*' comes from .*, not from"):
        digests("detection", tmp_path)


def test_a_commit_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert digest.main(["--against", "no-such-commit"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --against no-such-commit: ") and error.count("\n") == 1


def test_a_commits_files_are_there_for_as_long_as_they_are_needed() -> None:
    with checked_out("HEAD") as that:
        assert (that / "pyproject.toml").is_file()
        assert str(that) in _worktrees()
    assert not that.exists()
    assert str(that) not in _worktrees()


def _worktrees() -> str:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True
    )
    return listed.stdout
