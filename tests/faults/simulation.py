"""``python -m tests.faults.simulation``: queue and ledger through seeded schedules of faults.

Processes are killed, paused and thought dead, messages lost, repeated and delayed, the queue taken
away and emptied; ``tests.faults.simulated_run`` says what of, ``tests.faults.watched_queue`` what
must hold all the while. Adds a line to simulation.jsonl. ``--seed N`` plays one schedule and
prints its events.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.figure import EVIDENCE
from rewardtune.transport.queue.queue_state import QueueState
from tests.faults.simulated_run import run_schedule
from tests.faults.watched_queue import Violation

RESULTS = EVIDENCE / "faults" / "simulation.jsonl"
_REPORT_EVERY = 10_000


def replay_command(seed: int) -> str:
    return f"python -m tests.faults.simulation --seed {seed}"


def simulate(
    seeds: range,
    *,
    rules: type[QueueState] = QueueState,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, object]:
    """Play all schedules; what happened in them, summed up.

    Args:
        rules: of the queue.
        report: hears of every violation, and now and then how far it is.
    """
    totals: Counter[str] = Counter()
    failing: list[int] = []
    started = time.perf_counter()
    for num_done, seed in enumerate(seeds, start=1):
        try:
            totals.update(asdict(run_schedule(seed, rules=rules)))
        except Violation as violation:
            failing.append(seed)
            report(f"seed {seed}: {violation}\n  to see how: {replay_command(seed)}")
        if num_done % _REPORT_EVERY == 0:
            report(f"{num_done} schedules, {len(failing)} violations")
    return {
        "name": "simulation",
        "schedules": len(seeds),
        "first_seed": seeds.start,
        "violations": len(failing),
        "failing_seeds": failing[:10],
        **{name.removeprefix("num_"): count for name, count in totals.items()},
        "seconds": round(time.perf_counter() - started, 1),
    }


def replay(seed: int) -> bool:
    """Print every event of one schedule; whether it kept every promise."""
    try:
        outcome = run_schedule(seed, tell=print)
    except Violation as violation:
        print(f"violated: {violation}")
        return False
    print(f"kept: {outcome}")
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int, help="play this one and print its events")
    parser.add_argument("--output", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    if told.seed is not None:
        sys.exit(0 if replay(told.seed) else 1)

    def report(line: str) -> None:
        print(line, flush=True)

    seeds = range(told.first_seed, told.first_seed + told.schedules)
    result = simulate(seeds, report=report)
    # Imported late: it brings torch, which takes longer than a thousand schedules.
    from bench.figure import machine

    result["machine"] = machine()
    print(json.dumps(result))
    with told.output.open("a") as output:
        output.write(json.dumps(result) + "\n")
    sys.exit(1 if result["violations"] else 0)


if __name__ == "__main__":
    main()
