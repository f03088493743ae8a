"""``python -m bench.digest --against COMMIT``: whether this code trains the same bits as that.

Runs on both sides, each with its own code alone and with the same Python: 20 steps of the detection
demo, and way (a) of every crash-equivalence run (one process; depth 0 and depth 1). Side by side,
since final weights are the same bytes only on one machine and one build of torch, and nothing that
is committed can stand for another. Ends with exit code 1 if any digest differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.commit import ROOT, CommitError, checked_out, run_with

NUM_STEPS = {"demo": 20, "detection": 30, "captioning": 20, "panoptic": 20, "hugging_face": 20}
"""By run. Those of crash equivalence are as long as there."""
_NUM_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Row:
    run: str
    this: str
    """Hex digest of the final weights; empty where this side has no such run."""
    that: str

    @property
    def is_equal(self) -> bool:
        return self.this == self.that != ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.digest", description=__doc__)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="of this repository")
    parser.add_argument("--runs", nargs="+", choices=NUM_STEPS, default=list(NUM_STEPS))
    told = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    rows: list[Row] = []
    try:
        with checked_out(told.against) as that:
            for name in told.runs:
                with console.status(f"running {name} on both sides"):
                    rows += both(name, this=ROOT, that=that)
                console.print(f"{name}: done", highlight=False)
    except CommitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(table(rows, against=told.against))
    return 0 if all(row.is_equal for row in rows) else 1


def both(name: str, *, this: Path, that: Path) -> list[Row]:
    """One kind of run with the code of two folders, at the same time.

    Raises:
        CommitError: it fails on one side.
    """
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(lambda root: digests(name, root), (this, that))
    return compared(ours, theirs)


def digests(name: str, root: Path, *, num_steps: int | None = None) -> Mapping[str, str]:
    """Digests of the final weights by run, with the code of a folder and of no other.

    Raises:
        CommitError: it fails there.
    """
    return run_with(root, name, NUM_STEPS[name] if num_steps is None else num_steps)


def compared(this: Mapping[str, str], that: Mapping[str, str]) -> list[Row]:
    names = dict.fromkeys([*this, *that])
    return [Row(name, this.get(name, ""), that.get(name, "")) for name in names]


def table(rows: Sequence[Row], *, against: str) -> Table:
    result = Table(title="Final weights of this code and of that")
    for column in ("run", "this", against, "equal"):
        result.add_column(column, no_wrap=True)
    for row in rows:
        shown = [digest[:_NUM_SHOWN] or "none" for digest in (row.this, row.that)]
        result.add_row(row.run, *shown, "yes" if row.is_equal else "NO")
    return result


if __name__ == "__main__":
    sys.exit(main())
