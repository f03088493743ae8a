"""``make crash-equivalence``: one run many ways, with processes killed, and one set of weights.

The same 20 or 30 steps (a) in one process, (b) on Ray with one sampler and one reward worker, (c)
on Ray and Redis with a sampler and a reward worker killed in mid-run, (d) with the learner killed,
(e) with Redis killed, and later wiped. Each at depth 0 and depth 1. What was killed when, and what
that cost, goes to evidence/faults/crash_equivalence.jsonl; the last line printed holds the digests
of the final weights.

``--task captioning``, ``--task panoptic`` and ``--policy hugging-face`` (a captioner of
transformers) make other runs of it (``tests.faults.crash_runs``), with logs of their own: ``make
crash-equivalence RUN="--task captioning"``.

That the check can fail is part of it: a build whose workers commit in two writes
(``tests.faults.two_writes``) goes through (c) as well, and must be found out.
"""

from __future__ import annotations

import argparse
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

from bench.figure import EVIDENCE, machine
from bench.small_run import SILENT, one_ray, queue_of, weights_of
from rewardtune.cluster import launch
from rewardtune.cluster.driver.driver import Driver
from rewardtune.config.run_config import RunConfig
from rewardtune.run.local import tune
from rewardtune.transport.queue.job_queue import JobQueue, QueueUnavailable
from tests.faults.crash_runs import KINDS, Kind, Start, config_of
from tests.faults.redis_process import RedisProcess
from tests.faults.two_writes import TwoWritesCluster

OUTPUT = EVIDENCE / "faults" / "crash_equivalence.jsonl"


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


def main(arguments: Sequence[str] | None = None) -> int:
    kind = chosen(arguments)
    log = OUTPUT.with_stem(OUTPUT.stem + ("" if kind.name == "detection" else f"_{kind.name}"))
    log.write_text("")
    with tempfile.TemporaryDirectory(prefix="rt-crash-") as name:
        folder = Path(name)
        check = Check(kind, folder, kind.prepare(folder), log)
        with one_ray(folder):
            digests = {f"depth{depth}": check.all_ways(depth=depth) for depth in (0, 1)}
            broken = check.broken_way()
        other = check.config("other-seed", depth=0, seed=6)
        tune(other, SILENT)
        strangers = {"initial": check.start.weights, "other seed": weights_of(_final(other))}
    problems = [*check.problems, *verdict(digests, strangers)]
    if is_unnoticed(broken, digests["depth0"]):
        problems.append("a commit of two writes ended with the same weights as one that is whole")
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    print(json.dumps(digests))
    return 1 if problems else 0


def chosen(arguments: Sequence[str] | None = None) -> Kind:
    """The kind of run that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crash_equivalence")
    parser.add_argument("--task", choices=("detection", "captioning", "panoptic"))
    parser.add_argument("--policy", choices=("encoder-decoder", "hugging-face"))
    told = parser.parse_args(arguments)
    if told.policy == "hugging-face":
        if told.task not in (None, "captioning"):
            parser.error(f"--policy hugging-face writes captions, not --task {told.task}")
        return KINDS["hugging_face"]
    return KINDS[told.task or "detection"]


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


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of run, made in every way."""

    kind: Kind
    folder: Path
    start: Start
    log: Path
    problems: list[str] = field(default_factory=list)
    """What went wrong beside the weights."""

    def config(
        self, name: str, *, cluster: Mapping[str, Any] | None = None, **changes: Any
    ) -> RunConfig:
        return config_of(self.kind, self.folder, name, self.start, cluster=cluster or {}, **changes)

    def all_ways(self, *, depth: int) -> dict[str, str]:
        local = self.config(f"a{depth}", depth=depth)
        began = time.perf_counter()
        tune(local, SILENT)
        digests = {"a": weights_of(_final(local))}
        self._record("a", local, None, seconds=time.perf_counter() - began)

        def way(letter: str, blows: Sequence[Blow], **cluster: Any) -> Steered:
            config = self.config(f"{letter}{depth}", depth=depth, cluster=cluster)
            steered = self._run(letter, config, blows)
            digests[letter] = weights_of(_final(config))
            return steered

        undisturbed = way("b", [], num_samplers=1, num_reward_workers=1)
        if undisturbed.redeliveries:
            self.problems.append(
                f"depth {depth}: nobody was killed and {undisturbed.redeliveries} groups were "
                "scored twice: a worker lost its lease while it scored"
            )
        redis = RedisProcess(self.folder / f"redis-{depth}")
        try:
            way("c", _KILLS, queue=redis.url, num_samplers=2, num_reward_workers=3)
            way("d", [Blow(7, "learner killed", _kill("learner"))], num_samplers=1)
            way(
                "e",
                [
                    Blow(6, "Redis killed", lambda driver: redis.restart()),
                    Blow(14, "Redis wiped", lambda driver: redis.wipe()),
                ],
                queue=redis.url,
                num_samplers=1,
            )
        finally:
            redis.kill()
        return digests

    def broken_way(self) -> str:
        """As (c) at depth 0, with workers of another build."""
        redis = RedisProcess(self.folder / "redis-broken")
        cluster = {"queue": redis.url, "num_samplers": 2, "num_reward_workers": 3}
        config = self.config("broken", depth=0, cluster=cluster)
        try:
            with mock.patch.object(launch, "RayCluster", TwoWritesCluster):
                self._run("c with a commit of two writes", config, _KILLS)
        finally:
            redis.kill()
        return weights_of(_final(config))

    def _run(self, way: str, config: RunConfig, blows: Sequence[Blow]) -> Steered:
        steered = Steered(blows, config)
        began = time.perf_counter()
        launch.tune_on_ray(config, SILENT, on_driver=steered.watch)
        steered.finish()
        self._record(way, config, steered, seconds=time.perf_counter() - began)
        if len(steered.struck) < len(blows):
            self.problems.append(f"({way}) at depth {config.depth} ended before all was killed")
        return steered

    def _record(
        self, way: str, config: RunConfig, steered: Steered | None, *, seconds: float
    ) -> None:
        status = steered.status if steered else {}
        line = {
            "run": self.kind.name,
            "way": way,
            "depth": config.depth,
            "digest": weights_of(_final(config)),
            "struck": steered.struck if steered else [],
            "restarts": steered.restarts if steered else 0,
            "redeliveries": steered.redeliveries if steered else 0,
            "redraws": status.get("redraws", 0),
            "term": status.get("term", 0),
            "lease_seconds": config.cluster.lease_seconds,
            "seconds": round(seconds, 1),
            "machine": machine(),
        }
        with self.log.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({key: value for key, value in line.items() if key not in ("machine", "digest")})


def _final(config: RunConfig) -> Path:
    return config.operations.directory / "policy.safetensors"


if __name__ == "__main__":
    sys.exit(main())
