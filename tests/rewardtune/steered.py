"""A driver that only remembers what it was told, for tests of Control and its commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rewardtune.cluster.driver.whereabouts import Location, Whereabouts
from rewardtune.transport.queue.job_queue import (
    DeadLetter,
    Failure,
    FailureKind,
    QueueStats,
    QueueUnavailable,
    WorkerRecord,
)

WORKER = WorkerRecord(
    worker="host-7-abc",
    reward_digest="d",
    dataset_digest="e",
    state="ready",
    num_scorers=2,
    busy=1,
    metrics_address="127.0.0.1:9101",
    num_groups=10,
    core_seconds=2.5,
)
STATS = QueueStats(
    term=3,
    frontier=40,
    backlog=5,
    leased=2,
    results=1,
    oldest_seconds=1.5,
    redeliveries=4,
    failures={"crash": 2},
    refused={"host-9-def": 3},
    bad_entries=1,
)
STATUS: dict[str, Any] = {
    "run": "tuned",
    "directory": "/runs/tuned",
    "state": "running",
    "term": 3,
    "step": 5,
    "num_steps": 30,
    "depth": 1,
    "staleness": 1.0,
    "reward": 2.25,
    "step_seconds": 0.5,
    "wait_ratio": 0.25,
    "steps_per_second": 2.0,
    "phases": {"learn": 0.25, "wait": 0.125},
    "best": {"step": 4.0, "map": 0.5},
    "evaluations_skipped": 1,
    "redraws": 6,
    "draws_in_flight": 2,
    "services": [
        {"name": "learner", "kind": "learner", "pid": 11, "state": "busy", "restarts": 1},
        {"name": "sampler-0", "kind": "sampler", "pid": 0, "state": "starting", "restarts": 0},
    ],
    "reward_workers_wanted": 2,
    "reward_workers_required": 3,
    "depth_required": 2,
    "reward_workers": [{**asdict(WORKER), "is_in_ray": False}],
    "queue": asdict(STATS),
}
"""What a driver says in the midst of a run."""
NOT_BEGUN: dict[str, Any] = {
    **STATUS,
    "state": "starting",
    "term": -1,
    "step": 0,
    "staleness": None,
    "reward": None,
    "step_seconds": None,
    "wait_ratio": None,
    "steps_per_second": None,
    "phases": {},
    "best": {},
    "services": [],
    "reward_workers_required": None,
    "depth_required": None,
    "reward_workers": [],
    "queue": None,
}


def letter(ordinal: int, *, body: bytes = b"no group") -> DeadLetter:
    failure = Failure(FailureKind.EXCEPTION, "division by zero", "Traceback ...")
    return DeadLetter(
        term=3,
        ordinal=ordinal,
        body=body,
        failures=(failure, replace(failure, kind=FailureKind.CRASH)),
        worker="host-7-abc",
        reward_digest="d",
    )


class FakeDriver:
    """Implements ``rewardtune.cluster.control.server.Steered``."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.now = dict(STATUS)
        self.letters: list[DeadLetter] = []
        self.is_queue_away = False

    def status(self) -> dict[str, Any]:
        return self.now

    def explain(self, ordinal: int) -> Location:
        if self.is_queue_away:
            raise QueueUnavailable("no answer")
        return Location(
            ordinal=ordinal,
            whereabouts=Whereabouts.LEASED,
            batch=ordinal // 8,
            policy_version=2,
            detail="a reward worker has it",
        )

    def drain(self, *, for_restart: bool = False) -> None:
        self.told.append("drain for restart" if for_restart else "drain")

    def pause(self, *, is_paused: bool) -> None:
        self.told.append(("pause", is_paused))

    def checkpoint(self) -> None:
        self.told.append("checkpoint")

    def scale_reward_workers(self, count: int) -> int:
        if count > 4:
            raise ValueError(f"only 4 fit, got {count}")
        self.told.append(("scale", count))
        return 2

    def dead_letters(self) -> Sequence[DeadLetter]:
        return self.letters
