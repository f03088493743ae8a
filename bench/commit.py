"""The code of one commit, run by itself: what ``bench.digest`` and ``bench.cost`` compare by."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("commit_run.py")


class CommitError(RuntimeError):
    """A commit, or a run with its code, could not be made: nothing is known about it."""


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A folder with the files of a commit, for as long as it is needed.

    Raises:
        CommitError: there is no such commit.
    """
    with tempfile.TemporaryDirectory(prefix="rt-commit-") as folder:
        that = Path(folder) / "that"
        try:
            _git("worktree", "add", "--quiet", "--detach", str(that), f"{commit}^{{commit}}")
        except subprocess.CalledProcessError as error:
            raise CommitError(f"--against {commit}: {error.stderr.strip()}") from error
        try:
            yield that
        finally:
            _git("worktree", "remove", "--force", str(that))


def resolved(commit: str) -> str:
    """The hash that stands for a commit.

    Raises:
        CommitError: there is no such commit.
    """
    try:
        return _git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise CommitError(f"{commit}: {error.stderr.strip()}") from error


def run_with(root: Path, name: str, amount: int) -> Mapping[str, Any]:
    """What ``commit_run.py`` prints of one run, with the code of a folder and of no other.

    Raises:
        CommitError: it fails there.
    """
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), str(root), name, str(amount)],
        cwd=root,
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "OMP_WAIT_POLICY": "passive",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommitError(f"{name} fails in {root}: {_last_lines(done.stderr)}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _last_lines(text: str, *, num: int = 5) -> str:
    return "\n".join(text.strip().splitlines()[-num:])
