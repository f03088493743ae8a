"""``python -m tests.faults.recovery``: how long a run stands still when something is killed.

One real run on Ray and Redis, in which a reward worker, a sampler, the learner and Redis are
killed (SIGKILL) one after the other, several times each, in mid-work; Redis is started again at
once, as an orchestrator does it, with what its file holds or with nothing. Two times are taken
from the kill on:

- ``first``: to the next step of the learner that is not of before the kill;
- ``through``: to the first step on groups that nobody had drawn at the kill. By then everything
  that was in flight is done and new work has passed through every service.

The limits hold for ``through``, and for ``first`` where the learner dies: how many steps it takes
again is up to ``checkpoint_every``. Lines go to evidence/faults/recovery.jsonl.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from rewardtune.cluster.driver.driver import Driver
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import JobQueue, QueueUnavailable
from tests.faults.redis_process import RedisProcess

OUTPUT = EVIDENCE / "faults" / "recovery.jsonl"
LEASE_SECONDS = 10.0
NUM_TIMES = 3
DEPTH = 1
_STEADY_STEPS = 6
"""Between a recovery and the next kill."""
_NUM_HELD = 3
"""Leases of which one worker alone cannot hold all."""


@dataclass(frozen=True, slots=True)
class Blow:
    """What is killed, and how long that may cost."""

    name: str
    limit_seconds: float
    limited: str
    """Which of the two times the limit is of."""


WORKER = Blow("reward worker", LEASE_SECONDS + 5, "through")
SAMPLER = Blow("sampler", 30.0, "through")
LEARNER = Blow("learner", 60.0, "first")
REDIS = Blow("Redis", 10.0, "through")
EMPTY_REDIS = Blow("Redis, back empty", 10.0, "through")
BLOWS = (WORKER, SAMPLER, LEARNER, REDIS, EMPTY_REDIS)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rt-recover-") as name:
        folder = Path(name)
        start = small_start(folder, num_steps=10)
        redis = RedisProcess(folder / "redis")
        try:
            with one_ray(folder):
                lines = measure(_config(folder, start, redis.url), redis)
        finally:
            redis.kill()
    OUTPUT.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _print(lines)
    problems = [problem for line in lines for problem in problems_of(line)]
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


def measure(config: RunConfig, redis: RedisProcess) -> list[dict[str, Any]]:
    """A line for each kind of kill."""
    log = StepLog()
    taken: dict[Blow, list[tuple[float, float]]] = {blow: [] for blow in BLOWS}
    with live(config, log) as driver:
        queue = queue_of(config)
        for _ in range(NUM_TIMES):
            for blow in BLOWS:
                taken[blow].append(_struck(blow, driver, queue, redis, log))
                print(f"{blow.name}: {taken[blow][-1]}")
        status = driver.status()
    return [
        {
            "name": blow.name,
            "limited": blow.limited,
            "limit_seconds": blow.limit_seconds,
            "first_seconds": [round(first, 2) for first, _ in taken[blow]],
            "through_seconds": [round(through, 2) for _, through in taken[blow]],
            "lease_seconds": LEASE_SECONDS,
            "step_seconds": round(_usual_step_seconds(log), 2),
            "redraws": status["redraws"],
            **surroundings(),
        }
        for blow in BLOWS
    ]


def problems_of(line: Mapping[str, Any]) -> list[str]:
    worst = max(line[f"{line['limited']}_seconds"])
    if worst <= line["limit_seconds"]:
        return []
    return [f"{line['name']}: {worst:.1f} s, {line['limit_seconds']:.0f} s are the limit"]


def _struck(
    blow: Blow, driver: Driver, queue: JobQueue, redis: RedisProcess, log: StepLog
) -> tuple[float, float]:
    """Kill once the run is steady and the victim at work; seconds to both kinds of step."""
    steady = len(log.steps) + _STEADY_STEPS
    until(lambda: len(log.steps) >= steady and driver.status()["state"] == "running")
    until(lambda: _is_at_work(blow, driver, queue), every_seconds=0.005)
    num_before, newest, term = len(log.steps), log.newest, driver.status()["term"]
    began = time.monotonic()
    _strike(blow, driver, redis)
    if blow is LEARNER:
        until(lambda: driver.status()["term"] > term, every_seconds=0.01)
        first = next_step(log, len(log.steps))
    else:  # a step that was as good as taken may still be on its way to the log
        first = next_step(log, num_before + 1)
    through = newest + DEPTH + 2
    until(lambda: log.newest >= through, every_seconds=0.01)
    reached = next(
        at
        for at, step in zip(log.times[num_before:], log.steps[num_before:], strict=True)
        if step["step"] >= through
    )
    return first - began, reached - began


def next_step(log: StepLog, num_before: int) -> float:
    until(lambda: len(log.steps) > num_before, every_seconds=0.01)
    return log.times[num_before]


def _is_at_work(blow: Blow, driver: Driver, queue: JobQueue) -> bool:
    if blow is SAMPLER:
        return bool(_service(driver, "sampler")["state"] == "busy")
    try:
        return queue.stats().leased >= _NUM_HELD
    except QueueUnavailable:
        return False


def _strike(blow: Blow, driver: Driver, redis: RedisProcess) -> None:
    kinds = {WORKER: "reward_worker", SAMPLER: "sampler", LEARNER: "learner"}
    restarts: dict[Blow, Callable[[], None]] = {REDIS: redis.restart, EMPTY_REDIS: redis.wipe}
    if blow in restarts:
        restarts[blow]()
    else:
        os.kill(_service(driver, kinds[blow])["pid"], signal.SIGKILL)


def _service(driver: Driver, kind: str) -> Mapping[str, Any]:
    services: list[dict[str, Any]] = driver.status()["services"]
    return next(service for service in services if service["kind"] == kind)


def _usual_step_seconds(log: StepLog) -> float:
    seconds = sorted(step["seconds"] for step in log.steps)
    return float(seconds[len(seconds) // 2])


def _config(folder: Path, start: Path, redis_url: str) -> RunConfig:
    config = small_tune(
        folder,
        "recovery",
        start=start,
        task="tests.faults.sleeping",
        depth=DEPTH,
        task_options={"max_boxes": 3, "score_seconds": 0.1},
        learner={"batch_size": 8, "micro_batch": 8, "num_steps": 100_000},
        sampler={"micro_batch": 4},
        cluster={
            "num_samplers": 1,
            "num_reward_workers": 2,
            "lease_seconds": LEASE_SECONDS,
            "metrics_port": 0,
            "queue": redis_url,
        },
        operations={"checkpoint_every": 5},
    )
    return without_holdout(config)


def _print(lines: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="Seconds that a kill costs, worst of several")
    for column in ("killed", "first step", "new groups through", "limit"):
        table.add_column(column)
    for line in lines:
        table.add_row(
            line["name"],
            f"{max(line['first_seconds']):.1f}",
            f"{max(line['through_seconds']):.1f}",
            f"{line['limit_seconds']:.0f} ({line['limited']})",
        )
    Console(width=None if sys.stdout.isatty() else 100).print(table)


if __name__ == "__main__":
    sys.exit(main())
