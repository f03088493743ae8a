"""Which reward workers there are, by what they say of themselves; no clock, as ``queue_state``."""

from __future__ import annotations

from rewardtune.transport.queue.job_queue import WorkerRecord

DRAIN_SECONDS = 86_400.0
"""After so long a worker that was asked to drain has left, or was never here."""


class WorkerRegistry:
    """Workers, each listed until its time is over, and who of them is asked to leave."""

    def __init__(self) -> None:
        self._listed: dict[str, tuple[WorkerRecord, float]] = {}
        self._asked: dict[str, float] = {}

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float, now: float) -> bool:
        self._forget_silent(now)
        self._listed[record.worker] = (record, now + ttl_seconds)
        return record.worker in self._asked

    def deregister(self, worker: str) -> None:
        self._listed.pop(worker, None)
        self._asked.pop(worker, None)

    def workers(self, *, now: float) -> list[WorkerRecord]:
        """By name."""
        self._forget_silent(now)
        return [self._listed[name][0] for name in sorted(self._listed)]

    def request_drain(self, worker: str, *, now: float) -> None:
        for name in [name for name, at in self._asked.items() if now - at >= DRAIN_SECONDS]:
            del self._asked[name]
        self._asked[worker] = now

    def _forget_silent(self, now: float) -> None:
        for name in [name for name, (_, until) in self._listed.items() if until <= now]:
            del self._listed[name]
