"""``make crash-equivalence``: one run many ways, with processes killed, and one set of weights.

The same 30 steps (a) in one process, (b) on Ray with one sampler and one reward worker, (c) on
Ray and Redis with a sampler and a reward worker killed in mid-run, (d) with the learner killed,
(e) with Redis killed, and later wiped. Each at depth 0 and depth 1. What was killed when, and what
that cost, goes to bench/crash_equivalence.jsonl; the last line printed holds the digests of the
final weights.

That the check can fail is part of it: a build whose workers commit in two writes
(``bench.two_writes``) goes through (c) as well, and must be found out.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from bench.figure import machine
from bench.redis_process import RedisProcess
from bench.small_run import SILENT, one_ray, queue_of, small_start, small_tune, weights_of
from bench.two_writes import TwoWritesCluster
from rewardtune import launch
from rewardtune.config import RunConfig
from rewardtune.driver import Driver
from rewardtune.local import tune
from transport.job_queue import JobQueue, QueueUnavailable

OUTPUT = Path(__file__).with_suffix(".jsonl")
NUM_STEPS = 30
LEASE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that befalls the run once it has come so far."""

    step: int
    name: str
    strike: Callable[[Driver], None]


@dataclass(slots=True)
class Steered:
    """Watches a run from a thread and strikes when it is time, in mid-work."""

    blows: Sequence[Blow]
    config: RunConfig
    struck: list[dict[str, Any]] = field(default_factory=list)
    status: Mapping[str, Any] = field(default_factory=dict)
    redeliveries: int = 0
    restarts: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def watch(self, driver: Driver) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(driver,), daemon=True))
        self._threads[0].start()

    def finish(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, driver: Driver) -> None:
        waiting, queue = list(self.blows), None
        while not self._over.wait(0.02):
            self.status = driver.status()
            told = self.status["queue"]
            restarts = sum(service["restarts"] for service in self.status["services"])
            self.restarts = max(self.restarts, restarts)
            self.redeliveries = max(self.redeliveries, told["redeliveries"] if told else 0)
            if not waiting or self.status["step"] < waiting[0].step:
                continue
            queue = queue or queue_of(self.config)
            if not _is_at_work(queue):
                continue
            blow = waiting.pop(0)
            self.struck.append({"what": blow.name, "step": self.status["step"]})
            blow.strike(driver)


def _is_at_work(queue: JobQueue) -> bool:
    """Whether groups are being scored: a kill should hit somebody who holds some."""
    try:
        return queue.stats().leased > 1
    except QueueUnavailable:
        return False


def _kill(kind: str) -> Callable[[Driver], None]:
    def strike(driver: Driver) -> None:
        pids = [s["pid"] for s in driver.status()["services"] if s["kind"] == kind and s["pid"]]
        os.kill(pids[0], signal.SIGKILL)

    return strike


_KILLS = (
    Blow(5, "reward worker killed", _kill("reward_worker")),
    Blow(12, "sampler killed", _kill("sampler")),
)


def main() -> int:
    OUTPUT.write_text("")
    with tempfile.TemporaryDirectory(prefix="rt-crash-") as name:
        folder = Path(name)
        start = small_start(folder, num_steps=NUM_STEPS)
        with one_ray(folder):
            digests = {f"depth{depth}": _all_ways(folder, start, depth=depth) for depth in (0, 1)}
            broken = _broken_way(folder, start)
        other = _config(folder, "other-seed", start, depth=0, seed=6)
        tune(other, SILENT)
        strangers = {"initial": weights_of(start), "other seed": weights_of(_final(other))}
    problems = verdict(digests, strangers)
    if is_unnoticed(broken, digests["depth0"]):
        problems.append("a commit of two writes ended with the same weights as one that is whole")
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    print(json.dumps(digests))
    return 1 if problems else 0


def verdict(digests: Mapping[str, Mapping[str, str]], strangers: Mapping[str, str]) -> list[str]:
    """What is wrong with the digests; nothing, if each depth has one and all else differ."""
    problems = [
        f"{depth} ended with {len(set(found.values()))} different weights: {dict(found)}"
        for depth, found in digests.items()
        if len(set(found.values())) != 1
    ]
    ends = [next(iter(found.values())) for found in digests.values()]
    if len(set(ends)) != len(ends):
        problems.append("two depths ended with the same weights")
    problems += [f"a run ended with {name}'s weights" for name, d in strangers.items() if d in ends]
    return problems


def is_unnoticed(broken: str, digests: Mapping[str, str]) -> bool:
    """Whether a build that breaks the rules ended like those that keep them."""
    return not verdict({"depth": {**digests, "broken": broken}}, {})


def _all_ways(folder: Path, start: Path, *, depth: int) -> dict[str, str]:
    local = _config(folder, f"a{depth}", start, depth=depth)
    tune(local, SILENT)
    digests = {"a": weights_of(_final(local))}
    _record("a", local, None, seconds=0.0)

    def way(letter: str, blows: Sequence[Blow], **cluster: Any) -> None:
        config = _config(folder, f"{letter}{depth}", start, depth=depth, cluster=cluster)
        digests[letter] = _run(letter, config, blows)

    way("b", [], num_samplers=1, num_reward_workers=1)
    redis = RedisProcess(folder / f"redis-{depth}")
    try:
        way("c", _KILLS, redis=redis.url, num_samplers=2, num_reward_workers=3)
        way("d", [Blow(7, "learner killed", _kill("learner"))], num_samplers=1)
        way(
            "e",
            [
                Blow(6, "Redis killed", lambda driver: redis.restart()),
                Blow(14, "Redis wiped", lambda driver: redis.wipe()),
            ],
            redis=redis.url,
            num_samplers=1,
        )
    finally:
        redis.kill()
    return digests


def _broken_way(folder: Path, start: Path) -> str:
    """As (c) at depth 0, with workers of another build."""
    redis = RedisProcess(folder / "redis-broken")
    cluster = {"redis": redis.url, "num_samplers": 2, "num_reward_workers": 3}
    config = _config(folder, "broken", start, depth=0, cluster=cluster)
    try:
        with mock.patch.object(launch, "RayCluster", TwoWritesCluster):
            return _run("c with a commit of two writes", config, _KILLS)
    finally:
        redis.kill()


def _run(way: str, config: RunConfig, blows: Sequence[Blow]) -> str:
    steered = Steered(blows, config)
    began = time.perf_counter()
    launch.tune_on_ray(config, SILENT, on_driver=steered.watch)
    steered.finish()
    _record(way, config, steered, seconds=time.perf_counter() - began)
    return weights_of(_final(config))


def _record(way: str, config: RunConfig, steered: Steered | None, *, seconds: float) -> None:
    status = steered.status if steered else {}
    line = {
        "way": way,
        "depth": config.depth,
        "digest": weights_of(_final(config)),
        "struck": steered.struck if steered else [],
        "restarts": steered.restarts if steered else 0,
        "redeliveries": steered.redeliveries if steered else 0,
        "redraws": status.get("redraws", 0),
        "term": status.get("term", 0),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }
    with OUTPUT.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print({key: value for key, value in line.items() if key not in ("machine", "digest")})


def _config(
    folder: Path,
    name: str,
    start: Path,
    *,
    cluster: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunConfig:
    """Rewards that differ between boxes; two reward workers unless told otherwise."""
    return small_tune(
        folder,
        name,
        start=start,
        task="bench.slow_detection",
        learner={"estimator": "leave_one_out", "num_steps": NUM_STEPS},
        cluster={
            "lease_seconds": LEASE_SECONDS,
            "metrics_port": 0,
            "num_reward_workers": 2,
            **(cluster or {}),
        },
        **changes,
    )


def _final(config: RunConfig) -> Path:
    return config.operations.directory / "policy.safetensors"


if __name__ == "__main__":
    sys.exit(main())
