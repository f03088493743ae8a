"""``python -m tests.faults.scaling``: does scoring follow the workers, does the learner wait?

Real runs on Ray with scorers that sleep, so that few cores do for many workers.

- ``rate``: reward workers are scaled 1 -> 4 -> 1 in mid-run, through Control as an operator does
  it; groups scored per second are counted for ten seconds, from ten seconds after each change on.
- ``wait``: a learner that takes half a second per step, and as few workers as ``status`` asks for;
  how much of its time it waits.

A line for each goes to evidence/faults/scaling.jsonl; the exit code is 1 if a limit is not kept.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import EVIDENCE
from bench.small_run import (
    StepLog,
    live,
    one_ray,
    queue_of,
    small_start,
    small_tune,
    surroundings,
    until,
    without_holdout,
)
from rewardtune.cluster.control.client import ControlClient
from rewardtune.cluster.driver.capacity import HEADROOM
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import JobQueue

OUTPUT = EVIDENCE / "faults" / "scaling.jsonl"
SCORE_SECONDS = 0.2
STEP_SECONDS = 0.5
NUM_WORKERS = (1, 4, 1)
SETTLE_SECONDS = COUNT_SECONDS = 10.0
MAX_OFF = 0.15
MAX_WAIT_RATIO = 0.05
BATCH = 8
"""Of the runs whose learner must not wait."""
WAITS = ((1, 3, 0.1), (2, 2, 0.1))
"""Depth, reward workers, seconds per group."""
NUM_WARM_STEPS, NUM_STEPS = 10, 60


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rt-scale-") as name:
        folder = Path(name)
        start = small_start(folder, num_steps=10)
        with one_ray(folder):
            lines = [rate(folder, start)]
            lines += [
                wait(folder, start, depth=depth, num_workers=num, score_seconds=seconds)
                for depth, num, seconds in WAITS
            ]
    OUTPUT.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    problems = [problem for line in lines for problem in line["problems"]]
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def rate(folder: Path, start: Path) -> dict[str, Any]:
    """Groups scored per second with so many workers, one number of them after the other."""
    config = _config(
        folder,
        "rate",
        start,
        depth=2,
        task_options={"max_boxes": 3, "score_seconds": SCORE_SECONDS},
        learner={"batch_size": 16, "micro_batch": 16, "num_steps": 100_000},
        sampler={"micro_batch": 8},
        cluster={"num_reward_workers": NUM_WORKERS[0]},
    )
    log = StepLog()
    with live(config, log) as driver, ControlClient.of_run(config.operations.directory) as control:
        until(lambda: len(log.steps) >= 1)
        queue = queue_of(config)
        rates, settled = [], []
        for num_workers in NUM_WORKERS:
            control.scale_reward_workers(num_workers)
            settled.append(_settle(queue, num_workers))
            rates.append(scored_per_second(queue, seconds=COUNT_SECONDS))
        stats, redraws = queue.stats(), driver.status()["redraws"]
    line = {
        "name": "rate",
        "score_seconds": SCORE_SECONDS,
        "workers": list(NUM_WORKERS),
        "groups_per_second": [round(each, 2) for each in rates],
        "of_linear": [round(each, 3) for each in of_linear(rates, NUM_WORKERS)],
        "seconds_to_ready": settled,
        "redeliveries": stats.redeliveries,
        "duplicate_commits": stats.duplicate_commits,
        "redraws": redraws,
    }
    return {**line, "problems": rate_problems(line), **surroundings()}


def of_linear(rates: Sequence[float], num_workers: Sequence[int]) -> list[float]:
    """Each rate over what the first one says that so many workers should score."""
    alone = rates[0] / num_workers[0]
    return [rate / (num * alone) for rate, num in zip(rates, num_workers, strict=True)]


def rate_problems(line: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{num} workers score at {share:.0%} of linear, {1 - MAX_OFF:.0%} to {1 + MAX_OFF:.0%} is "
        "right"
        for num, share in zip(line["workers"], line["of_linear"], strict=True)
        if abs(share - 1) > MAX_OFF
    ]
    problems += [
        f"{line[name]} {name} although every worker went in good order"
        for name in ("redeliveries", "duplicate_commits", "redraws")
        if line[name]
    ]
    return problems


def wait(
    folder: Path, start: Path, *, depth: int, num_workers: int, score_seconds: float
) -> dict[str, Any]:
    """How much of its time a learner waits that should not need to."""
    config = _config(
        folder,
        f"wait-{depth}",
        start,
        depth=depth,
        task_options={
            "max_boxes": 3,
            "score_seconds": score_seconds,
            "learn_seconds": STEP_SECONDS / BATCH,
        },
        learner={"batch_size": BATCH, "micro_batch": BATCH, "num_steps": 100_000},
        sampler={"micro_batch": BATCH},
        cluster={"num_reward_workers": num_workers},
    )
    log = StepLog()
    with live(config, log) as driver:
        until(lambda: len(log.steps) >= NUM_WARM_STEPS)
        latencies = _latencies(queue_of(config), depth=depth, is_over=lambda: _has_all(log))
        status = driver.status()
    steps = log.steps[NUM_WARM_STEPS : NUM_WARM_STEPS + NUM_STEPS]
    seconds = statistics.fmean(step["seconds"] for step in steps)
    waited = statistics.fmean(step["seconds_wait"] for step in steps)
    line = {
        "name": "wait",
        "depth": depth,
        "workers": num_workers,
        "score_seconds": score_seconds,
        "step_seconds": round(seconds, 3),
        "wait_ratio": round(waited / seconds, 4),
        "latency_seconds": round(statistics.median(latencies), 3),
        "workers_needed": round(HEADROOM * BATCH * score_seconds / (seconds - waited), 2),
        "status_depth": status["depth"],
        "status_depth_required": status["depth_required"],
        "status_workers_required": status["reward_workers_required"],
    }
    return {**line, "problems": wait_problems(line), **surroundings()}


def wait_problems(line: Mapping[str, Any]) -> list[str]:
    """Conditions first: where they do not hold, nothing is said of the learner."""
    problems = []
    if line["latency_seconds"] > line["depth"] * line["step_seconds"]:
        problems.append(f"depth {line['depth']}: sampling and scoring take too long for the check")
    if line["workers_needed"] > line["workers"]:
        problems.append(f"depth {line['depth']}: too few workers for the check")
    if line["wait_ratio"] >= MAX_WAIT_RATIO:
        problems.append(f"depth {line['depth']}: the learner waits {line['wait_ratio']:.1%}")
    # Status goes by what scoring took, which is more than the sleep.
    expected = math.ceil(line["workers_needed"])
    if not expected <= line["status_workers_required"] <= expected + 1:
        problems.append(
            f"depth {line['depth']}: status requires {line['status_workers_required']} workers, "
            f"{line['workers_needed']:.2f} are needed"
        )
    if not 1 <= line["status_depth_required"] <= line["depth"]:
        problems.append(f"status requires depth {line['status_depth_required']}")
    if line["status_depth"] != line["depth"]:
        problems.append(f"status says depth {line['status_depth']}, not {line['depth']}")
    return problems


def _settle(queue: JobQueue, num_workers: int) -> float | None:
    """Wait; when there were as many workers ready as there should be, or None if not in time."""
    began, reached = time.monotonic(), None
    while (waited := time.monotonic() - began) < SETTLE_SECONDS:
        num_ready = sum(worker.state == "ready" for worker in queue.workers())
        if reached is None and num_ready == num_workers:
            reached = round(waited, 1)
        time.sleep(0.1)
    return reached


def scored_per_second(queue: JobQueue, *, seconds: float) -> float:
    began, before = time.perf_counter(), num_scored(queue)
    time.sleep(seconds)
    return (num_scored(queue) - before) / (time.perf_counter() - began)


def num_scored(queue: JobQueue) -> int:
    """Since the run began: what was consumed was scored before."""
    stats = queue.stats()
    return stats.frontier + stats.results


def _has_all(log: StepLog) -> bool:
    return len(log.steps) >= NUM_WARM_STEPS + NUM_STEPS


def _latencies(queue: JobQueue, *, depth: int, is_over: Callable[[], bool]) -> list[float]:
    """Seconds from the publication of a version to the last score of the batch drawn with it."""
    published: dict[int, float] = {}
    scored: dict[int, float] = {}
    while not is_over():
        stats, now = queue.stats(), time.perf_counter()
        published.setdefault(stats.frontier // BATCH, now)
        scored.setdefault((stats.frontier + stats.results) // BATCH, now)
        time.sleep(0.01)
    return [
        at - published[num - 1 - depth]
        for num, at in scored.items()
        if num - 1 - depth in published and num > min(scored)
    ]


def _config(folder: Path, name: str, start: Path, **changes: Any) -> RunConfig:
    cluster = {"num_samplers": 1, "metrics_port": 0, **changes.pop("cluster")}
    config = small_tune(
        folder,
        name,
        start=start,
        task="tests.faults.sleeping",
        cluster=cluster,
        operations={"checkpoint_every": 100_000},
        **changes,
    )
    return without_holdout(config)


def _print(lines: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="Reward workers")
    for column in ("experiment", "workers", "measured", "limit"):
        table.add_column(column)
    first, *others = lines
    for num, each, share in zip(
        first["workers"], first["groups_per_second"], first["of_linear"], strict=True
    ):
        table.add_row(
            f"scorers sleep {first['score_seconds']} s",
            str(num),
            f"{each:.2f} groups/s, {share:.0%} of linear",
            f"{1 - MAX_OFF:.0%} to {1 + MAX_OFF:.0%}",
        )
    for line in others:
        table.add_row(
            f"depth {line['depth']}, step {line['step_seconds']} s, "
            f"latency {line['latency_seconds']} s",
            f"{line['workers']}, {line['workers_needed']:.2f} needed",
            f"learner waits {line['wait_ratio']:.1%}",
            f"{MAX_WAIT_RATIO:.0%}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
