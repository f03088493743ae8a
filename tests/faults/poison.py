"""``python -m tests.faults.poison``: a live queue full of forgeries, and a run that does not mind.

One run is left alone, and on every kind of queue one has a forger beside it, who holds a worker's
rights: random entries in the work stream, results damaged in every field of every message, jobs of
groups that nobody drew, and on Redis commands sent past the queue, over every key. What must hold:
the same final weights, every accepted forgery refused and counted under its worker's name, no group
trained on that was not drawn. Adds a line to poison.jsonl for each.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from bench.figure import EVIDENCE, machine
from bench.small_run import one_ray
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    JobQueue,
    QueueFull,
    QueueLimits,
    QueueUnavailable,
    Term,
)
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.queue.ray_queue import join_ray_queue, start_ray_queue
from rewardtune.transport.queue.redis_acl import users
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.term import StaleTerm
from tests.faults.forgeries import damaged_result, direct_command, stream_entry
from tests.faults.poisoned_run import Ended, PoisonedRun
from tests.rewardtune.transport.redis_server import redis_binaries, running

RESULTS = EVIDENCE / "faults" / "poison.jsonl"
RUN = "poisoned"
FORGER = "forger"
LIMITS = QueueLimits(lease_seconds=2.0)
_MAX_PER_GROUP = 20
"""Well below what ends a run."""
PASSWORDS = {"learner": "learners", "worker": "workers"}


@dataclass(frozen=True, slots=True)
class Target:
    """A queue, as the run's own processes and as a worker reach it."""

    connect: Callable[[], JobQueue]
    as_worker: Callable[[], JobQueue]
    direct: redis.Redis | None = None
    """A plain connection with a worker's rights."""


@contextmanager
def memory() -> Iterator[Target]:
    queue = MemoryJobQueue(LIMITS)
    yield Target(lambda: queue, lambda: queue)


@contextmanager
def on_ray(name: str) -> Iterator[Target]:
    # Held: the actor lives as long as the first handle to it.
    started = start_ray_queue(name, "poison", LIMITS)

    def join() -> JobQueue:
        return join_ray_queue(name, "poison")

    yield Target(join, join)
    del started


@contextmanager
def on_redis(folder: Path, *, forger: str = RUN) -> Iterator[Target]:
    """The newest server there is, with the users that ``rewardtune redis-acl`` prints.

    Args:
        forger: name of the run whose worker's password the forger has.
    """
    binary = redis_binaries()[max(redis_binaries())]
    folder.mkdir()
    rules = [
        line
        for run in sorted({RUN, forger})
        for line in users(run, learner=PASSWORDS["learner"], worker=PASSWORDS["worker"])
    ]
    with running(binary, folder, users=rules) as server, ExitStack() as stack:

        def connect(user: str) -> JobQueue:
            url = f"redis://{RUN}-{user}:{PASSWORDS[user]}@127.0.0.1:{server.port}"
            return RedisJobQueue.connect(url, run=RUN, limits=LIMITS)

        direct = redis.Redis(
            port=server.port,
            username=f"{forger}-worker",
            password=PASSWORDS["worker"],
            protocol=2,
        )
        stack.callback(direct.close)
        yield Target(lambda: connect("learner"), lambda: connect("worker"), direct)


class Forger:
    """Forges so many of each kind, and counts what became of them."""

    def __init__(
        self, target: Target, *, seed: int, entries: int, results: int, commands: int
    ) -> None:
        self._target = target
        self._rng = random.Random(seed)
        self._left = {"entries": entries, "results": results, "commands": commands}
        self._total = max(1, entries + results + commands)
        self.counts: Counter[str] = Counter()

    def is_ahead(self, share: float) -> bool:
        return 1 - sum(self._left.values()) / self._total >= share

    def __call__(self, term: Term, spec: ScoringSpec, stop: threading.Event) -> None:
        queue = self._target.as_worker()
        per_group: Counter[int] = Counter()
        while any(self._left.values()) and not stop.is_set():
            kind = self._rng.choice([kind for kind, left in self._left.items() if left])
            try:
                is_done = getattr(self, f"_forge_{kind}")(queue, spec, per_group)
            except (QueueUnavailable, StaleTerm):
                time.sleep(0.002)
                continue
            self._left[kind] -= is_done
        self.counts["left"] = sum(self._left.values())
        if queue is not self._target.connect():
            queue.close()

    def _forge_results(self, queue: JobQueue, spec: ScoringSpec, per_group: Counter[int]) -> bool:
        for job in queue.lease(FORGER, reward_digest="", max_jobs=1, timeout_seconds=0.02):
            if per_group[job.ordinal] >= _MAX_PER_GROUP:
                queue.give_back(job, FORGER)
                time.sleep(0.005)
                return False
            try:
                scored = damaged_result(self._rng, job.body, spec.promise)
            except ValueError:  # of a group that it has forged itself
                scored = b"FORGED"
            outcome = queue.commit(job, FORGER, scored)
            per_group[job.ordinal] += 1
            self.counts[f"results_{outcome.value}"] += 1
            return outcome is CommitOutcome.ACCEPTED
        return False

    def _forge_entries(self, queue: JobQueue, spec: ScoringSpec, per_group: Counter[int]) -> bool:
        """Into the stream where there is one; else jobs of groups that nobody drew."""
        direct = self._target.direct
        if direct is not None:
            fields: Any = stream_entry(self._rng)
            direct.xadd(f"{{{RUN}}}:work", fields)
            self.counts["entries"] += 1
            return True
        ordinal = queue.stats().frontier + self._rng.randrange(16)
        try:
            is_put = queue.put(0, ordinal, self._rng.randbytes(40), seal=self._rng.randbytes(32))
        except QueueFull:
            is_put = False
        self.counts["foreign_jobs"] += is_put
        self.counts["entries"] += 1
        time.sleep(0.001)
        return True

    def _forge_commands(self, queue: JobQueue, spec: ScoringSpec, per_group: Counter[int]) -> bool:
        direct = self._target.direct
        assert direct is not None
        try:
            ordinal = queue.stats().frontier + self._rng.randrange(12)
        except QueueUnavailable:
            ordinal = self._rng.randrange(12)
        try:
            command = direct_command(self._rng, run=RUN, ordinal=ordinal)
            direct.execute_command(*command)  # type: ignore[no-untyped-call]
            self.counts["commands_done"] += 1
        except redis.exceptions.NoPermissionError:
            self.counts["commands_denied"] += 1
        except redis.ResponseError:
            self.counts["commands_in_vain"] += 1
        # One at a time, as far as the learner's looks go.
        time.sleep(0.02)
        return True


@dataclass(frozen=True, slots=True)
class Attack:
    """One run that is left alone and one that is not."""

    calm: Ended
    forged: Ended
    counts: Counter[str]

    @property
    def broken(self) -> list[str]:
        """Promises that did not hold."""
        found = []
        if self.forged.num_foreign:
            found.append(f"{self.forged.num_foreign} groups were trained on that nobody drew")
        if self.counts["left"]:
            found.append(f"{self.counts['left']} forgeries were not made: take more steps")
        if self.calm.error:
            found.append(f"the run that was left alone: {self.calm.error}")
        if self.forged.error and "see who has" not in self.forged.error:
            found.append(self.forged.error)
        if not self.forged.error and self.forged.digest != self.calm.digest:
            found.append("the final weights are others")
        refused = 0 if self.forged.stats is None else self.forged.stats.refused.get(FORGER, 0)
        if not self.counts["commands"] and refused != self.counts["results_accepted"]:
            found.append(f"{refused} of {self.counts['results_accepted']} results were refused")
        return found


def left_alone(run: PoisonedRun) -> Ended:
    """What every kind of queue must come to."""
    with memory() as target:
        return run.go(target.connect)


def attack(
    run: PoisonedRun,
    calm: Ended,
    make: Callable[[], Any],
    *,
    seed: int = 0,
    entries: int = 0,
    results: int = 0,
    commands: int = 0,
) -> Attack:
    """
    Args:
        calm: the same run, left alone.
        make: a new, empty queue, as a context.
    """
    with make() as target:
        forger = Forger(target, seed=seed, entries=entries, results=results, commands=commands)
        forger.counts["commands"] = commands
        forged = run.go(target.connect, as_worker=target.as_worker, forge=forger)
    return Attack(calm, forged, forger.counts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.poison", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", choices=("memory", "ray", "redis", "commands", "neighbour"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    told = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = PoisonedRun(folder / "run", num_steps=told.steps)
        calm = left_alone(run)
        forged = {"entries": told.entries, "results": told.results}
        kinds: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
            "memory": (memory, forged),
            "ray": (lambda: on_ray("queue"), forged),
            "redis": (lambda: on_redis(folder / "redis"), forged),
            "commands": (lambda: on_redis(folder / "direct"), {"commands": told.commands}),
            "neighbour": (
                lambda: on_redis(folder / "neighbour", forger="another"),
                {"commands": told.commands},
            ),
        }
        for kind, (make, counts) in kinds.items():
            if told.only not in (None, kind):
                continue
            if kind == "ray":
                one_ray(folder)
            began = time.perf_counter()
            made = attack(run, calm, make, **counts)
            record = {
                "kind": kind,
                "steps": told.steps,
                "seed": 0,
                **made.counts,
                "refused": {} if made.forged.stats is None else dict(made.forged.stats.refused),
                "bad_entries": made.forged.stats.bad_entries if made.forged.stats else None,
                "is_same_digest": made.forged.digest == made.calm.digest,
                "foreign_groups_trained_on": made.forged.num_foreign,
                "invalid": made.forged.num_invalid,
                "redraws": made.forged.num_redraws,
                "cleared": sum("cleared the queue" in each for each in made.forged.messages),
                "ended_by": made.forged.error,
                "broken": made.broken,
                "seconds": round(time.perf_counter() - began, 1),
                "machine": machine(),
            }
            print(json.dumps(record), flush=True)
            with told.output.open("a") as output:
                output.write(json.dumps(record) + "\n")
            failed = failed or bool(made.broken)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
