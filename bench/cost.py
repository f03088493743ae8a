"""``python -m bench.cost --against COMMIT``: whether this code is slower than that.

What a group costs without the work of policy and task, what it costs to pass through Redis, and a
step of the detection demo: each with the code of one side, then of the other, for some rounds, so
that what else the machine does meets both. Appends to evidence/bench/cost.jsonl; ends with exit
code 1 if the median of any is slower than that commit's by more than the limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.commit import ROOT, CommitError, checked_out, resolved, run_with
from bench.figure import EVIDENCE, machine

OUTPUT = EVIDENCE / "bench" / "cost.jsonl"
LIMIT = 0.05
"""By which a median may be slower."""
AMOUNTS = {"no-op group": 15, "Redis group": 16, "demo step": 9}
"""Steps, batches and steps of one measurement."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds by round, of both sides."""

    name: str
    this: tuple[float, ...]
    that: tuple[float, ...]

    @property
    def change(self) -> float:
        """Of the median, as a share of that side's; above 0: this code is slower."""
        return statistics.median(self.this) / statistics.median(self.that) - 1

    @property
    def spread(self) -> float:
        """From the fastest to the slowest round of that side, as a share of its median."""
        return (max(self.that) - min(self.that)) / statistics.median(self.that)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="of this repository")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    told = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    costs = []
    try:
        commits = {"this": resolved("HEAD"), "that": resolved(told.against)}
        with checked_out(told.against) as that:
            for name in AMOUNTS:
                with console.status(f"measuring the {name} on both sides"):
                    costs.append(measured(name, that=that, num_rounds=told.rounds))
    except CommitError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with told.output.open("a") as file:
        for cost in costs:
            file.write(f"{json.dumps(record(cost, commits))}\n")
    console.print(table(costs, against=told.against))
    return 0 if all(cost.change <= LIMIT for cost in costs) else 1


def measured(name: str, *, that: Path, num_rounds: int) -> Cost:
    """
    Raises:
        CommitError: a run fails on one side.
    """
    pairs = list(_pairs(name, that, num_rounds))
    return Cost(name, *(tuple(side) for side in zip(*pairs, strict=True)))


def _pairs(name: str, that: Path, num_rounds: int) -> Iterator[tuple[float, float]]:
    for round_number in range(num_rounds):
        # Who goes first changes: the second of two finds a warmer machine.
        sides = (ROOT, that) if round_number % 2 == 0 else (that, ROOT)
        found = {root: float(run_with(root, name, AMOUNTS[name])[name]) for root in sides}
        yield found[ROOT], found[that]


def record(cost: Cost, commits: Mapping[str, str]) -> dict[str, object]:
    return {
        **asdict(cost),
        "change": round(cost.change, 4),
        "commits": dict(commits),
        "machine": machine(),
    }


def table(costs: Sequence[Cost], *, against: str) -> Table:
    result = Table(title="Median seconds of this code and of that")
    for column in ("", "this", against, "slower by", "spread of single rounds"):
        result.add_column(column, no_wrap=True)
    for cost in costs:
        medians = (f"{statistics.median(side):.3g}" for side in (cost.this, cost.that))
        result.add_row(cost.name, *medians, f"{cost.change:+.1%}", f"{cost.spread:.0%}")
    return result


if __name__ == "__main__":
    sys.exit(main())
