"""The job queue within one process: the rules of ``queue_state`` behind a lock."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    DeadLetter,
    FailOutcome,
    Failure,
    Job,
    QueueLimits,
    QueueStats,
    Result,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.queue_state import QueueState
from rewardtune.transport.queue.worker_registry import WorkerRegistry

_USUAL_LIMITS = QueueLimits()


class MemoryJobQueue:
    """Implements ``JobQueue``. Workers wait for jobs, the learner for results, nobody for room."""

    def __init__(
        self, limits: QueueLimits = _USUAL_LIMITS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            clock: seconds; by it leases expire and workers fall silent. Time-outs of calls are
                real time.
        """
        self._state = QueueState(limits, instance=f"{uuid.uuid4().hex[:8]}-")
        self._registry = WorkerRegistry()
        self._clock = clock
        self._lock = threading.Lock()
        self._job_came = threading.Condition(self._lock)
        self._bell_rang = threading.Condition(self._lock)
        self._rings_heard = 0

    @property
    def num_rings(self) -> int:
        """Grows whenever ``wait`` would return."""
        with self._lock:
            return self._state.num_rings

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        with self._lock:
            self._state.open_term(term, frontier=frontier, afresh=afresh)
            self._bell_rang.notify_all()

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        with self._lock:
            is_new = self._state.put(term, ordinal, body, now=self._clock(), seal=seal)
            if is_new:
                self._job_came.notify()
            return is_new

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        with self._lock:
            return self._state.missing(term, ordinals)

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        with self._lock:
            return self._state.results(term, ordinals)

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool) -> None:
        with self._lock:
            self._state.refuse(
                term, ordinal, worker=worker, keep_group=keep_group, now=self._clock()
            )
            self._job_came.notify()

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        with self._lock:
            self._state.check_term(term)
            heard = self._rings_heard
            self._bell_rang.wait_for(lambda: self._state.num_rings != heard, timeout_seconds)
            self._rings_heard = self._state.num_rings
            self._state.check_term(term)

    def consume(self, term: int, *, before: int) -> None:
        with self._lock:
            self._state.consume(term, before=before)

    def term(self) -> Term | None:
        with self._lock:
            return self._state.term()

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        with self._lock:
            return self._registry.heartbeat(record, ttl_seconds=ttl_seconds, now=self._clock())

    def deregister(self, worker: str) -> None:
        with self._lock:
            self._registry.deregister(worker)

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        until = time.monotonic() + timeout_seconds
        with self._lock:
            while True:
                rings, now = self._state.num_rings, self._clock()
                jobs = self._state.lease(
                    worker, reward_digest=reward_digest, max_jobs=max_jobs, now=now
                )
                if self._state.num_rings != rings:  # a job was given up
                    self._bell_rang.notify_all()
                left = until - time.monotonic()
                if jobs or left <= 0:
                    return jobs
                expiry = self._state.next_expiry()
                self._job_came.wait(left if expiry is None else min(left, expiry - now))

    def renew(self, job: Job, worker: str) -> bool:
        with self._lock:
            return self._state.renew(job, worker, now=self._clock())

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        with self._lock:
            outcome = self._state.commit(job, scored, worker=worker)
            if outcome is CommitOutcome.ACCEPTED:
                self._bell_rang.notify_all()
            return outcome

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        with self._lock:
            outcome = self._state.fail(job, worker, failure)
            if outcome is FailOutcome.DEAD:
                self._bell_rang.notify_all()
            elif outcome is FailOutcome.RETRY:
                self._job_came.notify()
            return outcome

    def give_back(self, job: Job, worker: str) -> None:
        with self._lock:
            self._state.give_back(job, worker)
            self._job_came.notify()

    def workers(self) -> list[WorkerRecord]:
        with self._lock:
            return self._registry.workers(now=self._clock())

    def request_drain(self, worker: str) -> None:
        with self._lock:
            self._registry.request_drain(worker, now=self._clock())

    def stats(self) -> QueueStats:
        with self._lock:
            return self._state.stats(now=self._clock())

    def dead_letters(self) -> list[DeadLetter]:
        with self._lock:
            return self._state.dead_letters()

    def close(self) -> None:
        """There is nothing to let go of."""
