"""That tests which are skipped for a missing tool are told in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.skipped import FILE_VARIABLE, closing_line

ROOT = Path(__file__).resolve().parents[1]


def lines(**reasons: str) -> list[str]:
    return [json.dumps(pair) for pair in reasons.items()]


def test_one_name_for_what_is_missing_and_how_many_tests_miss_it() -> None:
    skipped = lines(
        a="the shared data are not beside this repository",
        b="../shared/data is not here",
        c="promtool is not installed",
        d="no right to mount a small disk",
    )
    told = "../shared (2), no right to mount a small disk (1), prometheus (1)"
    assert closing_line(skipped) == f"skipped for want of: {told}"


def test_a_test_that_two_runs_skip_counts_once() -> None:
    once = lines(a="kubectl is not installed")
    assert closing_line([*once, *once]) == "skipped for want of: kubectl (1)"


def test_nothing_skipped_is_told_too() -> None:
    assert closing_line([]) == "no test was skipped"


def test_runs_of_pytest_add_to_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "skipped"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    for name in ("one", "two"):
        test = tmp_path / f"test_{name}.py"
        test.write_text(
            "import pytest\n"
            "@pytest.mark.skipif(True, reason='redis-server is not installed')\n"
            f"def test_{name}(): pass\n"
            "def test_that_runs(): pass\n"
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skipped", str(test)]
        own = ["-c", "/dev/null", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
        subprocess.run([*command, *own], cwd=ROOT, check=True, capture_output=True)
    told = subprocess.run(
        [sys.executable, "-m", "tests.skipped", str(file)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "skipped for want of: redis-server (2)\n"


@pytest.mark.parametrize("code", [0, 3])
def test_ci_ends_with_the_line_and_the_code_of_what_failed(tmp_path: Path, code: int) -> None:
    """With a make and a Python of its own: only what the script does around them is looked at."""
    clone = tmp_path / "clone"
    (clone / ".ci").mkdir(parents=True)
    (clone / ".ci" / "run").write_bytes((ROOT / ".ci/run").read_bytes())
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").symlink_to(sys.executable)
    (clone / "tests").symlink_to(ROOT / "tests")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("redis-server", "prometheus"):
        (commands / name).touch(mode=0o755)
    (commands / "make").write_text(f'#!/bin/sh\n[ "$1" = check ] || exit {code}\n')
    (commands / "make").chmod(0o755)
    done = subprocess.run(
        ["bash", str(clone / ".ci/run")],
        env={"PATH": f"{commands}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (code, "no test was skipped\n"), done.stderr
