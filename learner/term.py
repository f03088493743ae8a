"""Which start of the learner this is: a fence against one that was thought dead."""

from __future__ import annotations

from pathlib import Path


def claim_term(run_directory: Path) -> int:
    """Take the next term by creating ``terms/N``, which only one process can.

    Source: DESIGN section 3.
    """
    folder = run_directory / "terms"
    folder.mkdir(parents=True, exist_ok=True)
    term = latest_term(run_directory) + 1
    while True:
        try:
            (folder / str(term)).touch(exist_ok=False)
        except FileExistsError:
            term += 1
        else:
            return term


def latest_term(run_directory: Path) -> int:
    """The highest term ever claimed, -1 if none."""
    folder = run_directory / "terms"
    if not folder.is_dir():
        return -1
    return max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)
