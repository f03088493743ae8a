"""The job queue in an actor of the Ray cluster: the embedded default, with nothing to install.

The actor hosts a ``MemoryJobQueue``. When its process dies Ray starts it again, empty; until the
learner has opened its term there, every call says ``QueueUnavailable``.

Nobody blocks the actor: it is one event loop on which callers that wait are asleep. They ask again
every second, so that a job is lent to a caller that has died only in the second after its death.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    DeadLetter,
    FailOutcome,
    Failure,
    Job,
    QueueLimits,
    QueueRefused,
    QueueStats,
    QueueUnavailable,
    Result,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.memory_queue import MemoryJobQueue

START_SECONDS = 60.0
"""Until an actor that was asked for must answer; a busy machine takes several seconds."""
CALL_SECONDS = 10.0
"""Until a call must have come back, beyond the time that it may wait."""
MAX_SLEEP_SECONDS = 1.0
MAX_CALLERS = 10_000
"""Calls that may be in the actor at once, nearly all of them asleep."""

_FREES_A_JOB = ("put", "refuse", "fail", "give_back")


class QueueActor:
    """The queue's process. All of it runs on one event loop, so nothing needs a lock."""

    def __init__(self, limits: QueueLimits) -> None:
        self._queue = MemoryJobQueue(limits)
        # Leases end without a call, so a worker that waits looks for itself now and then.
        self._sleep_seconds = min(MAX_SLEEP_SECONDS, limits.lease_seconds / 3)
        self._workers: deque[asyncio.Future[None]] = deque()
        self._learners: deque[asyncio.Future[None]] = deque()

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """A method of ``JobQueue`` that does not wait."""
        rings = self._queue.num_rings
        answer = getattr(self._queue, method)(*arguments, **options)
        self._pass_on(rings)
        if method in _FREES_A_JOB:
            _wake(self._workers, 1)
        return answer

    async def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        until = time.monotonic() + timeout_seconds
        while True:
            rings = self._queue.num_rings
            jobs = self._queue.lease(
                worker, reward_digest=reward_digest, max_jobs=max_jobs, timeout_seconds=0
            )
            self._pass_on(rings)
            left = until - time.monotonic()
            if jobs or left <= 0:
                return jobs
            await _sleep(self._workers, min(left, self._sleep_seconds))

    async def wait(self, term: int, *, heard: int, timeout_seconds: float) -> int:
        """Return the bell's count when it is not, or no longer, what the caller has heard."""
        self._queue.missing(term, ())  # raises if the term is not the one that is open
        if self._queue.num_rings == heard:
            await _sleep(self._learners, timeout_seconds)
            self._queue.missing(term, ())
        return self._queue.num_rings

    def _pass_on(self, rings: int) -> None:
        if self._queue.num_rings != rings:
            _wake(self._learners, len(self._learners))


async def _sleep(sleepers: deque[asyncio.Future[None]], seconds: float) -> None:
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sleepers.append(woken)
    await asyncio.wait([woken], timeout=seconds)
    if not woken.done():
        sleepers.remove(woken)


def _wake(sleepers: deque[asyncio.Future[None]], count: int) -> None:
    for _ in range(min(count, len(sleepers))):
        sleepers.popleft().set_result(None)


class RayJobQueue:
    """Implements ``JobQueue`` from any process of the cluster."""

    def __init__(self, actor: ActorHandle[Any], *, where: str) -> None:
        self._actor = actor
        self._where = where
        self._rings_heard = 0

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        self._call("open_term", term, frontier=frontier, afresh=afresh)

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        return bool(self._call("put", term, ordinal, body, seal=seal))

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        found: list[int] = self._call("missing", term, ordinals)
        return found

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        found: dict[int, Result] = self._call("results", term, ordinals)
        return found

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool) -> None:
        self._call("refuse", term, ordinal, worker=worker, keep_group=keep_group)

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        until = time.monotonic() + timeout_seconds
        heard = self._rings_heard
        while self._rings_heard == heard:
            left = max(0.0, min(until - time.monotonic(), MAX_SLEEP_SECONDS))
            self._rings_heard = self._answer(
                self._actor.wait.remote(term, heard=heard, timeout_seconds=left), left
            )
            if time.monotonic() >= until:
                return

    def consume(self, term: int, *, before: int) -> None:
        self._call("consume", term, before=before)

    def term(self) -> Term | None:
        found: Term | None = self._call("term")
        return found

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        return bool(self._call("heartbeat", record, ttl_seconds=ttl_seconds))

    def deregister(self, worker: str) -> None:
        self._call("deregister", worker)

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        until = time.monotonic() + timeout_seconds
        while True:
            left = max(0.0, min(until - time.monotonic(), MAX_SLEEP_SECONDS))
            jobs: list[Job] = self._answer(
                self._actor.lease.remote(
                    worker, reward_digest=reward_digest, max_jobs=max_jobs, timeout_seconds=left
                ),
                left,
            )
            if jobs or time.monotonic() >= until:
                return jobs

    def renew(self, job: Job, worker: str) -> bool:
        return bool(self._call("renew", job, worker))

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        return CommitOutcome(self._call("commit", job, worker, scored))

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        return FailOutcome(self._call("fail", job, worker, failure))

    def give_back(self, job: Job, worker: str) -> None:
        self._call("give_back", job, worker)

    def workers(self) -> list[WorkerRecord]:
        found: list[WorkerRecord] = self._call("workers")
        return found

    def request_drain(self, worker: str) -> None:
        self._call("request_drain", worker)

    def stats(self) -> QueueStats:
        found: QueueStats = self._call("stats")
        return found

    def dead_letters(self) -> list[DeadLetter]:
        found: list[DeadLetter] = self._call("dead_letters")
        return found

    def close(self) -> None:
        """The actor lives on, as long as whoever started it."""

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._answer(self._actor.call.remote(method, *arguments, **options), 0.0)

    def _answer(self, call: Any, waiting_seconds: float) -> Any:
        try:
            return ray.get(call, timeout=waiting_seconds + CALL_SECONDS)
        except RayTaskError as error:
            # Ray raises a mixture of both; callers know only what the queue raised.
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None
        except GetTimeoutError as error:
            raise QueueUnavailable(
                f"the queue {self._where} did not answer within {CALL_SECONDS:.0f} s"
            ) from error
        except RayError as error:
            raise QueueUnavailable(
                f"the queue {self._where} cannot be reached ({type(error).__name__}): Ray starts "
                "its actor again, and the learner opens the term again"
            ) from error


def start_ray_queue(name: str, namespace: str, limits: QueueLimits) -> RayJobQueue:
    """Start an actor, which lives as long as this process and its last reference to the queue.

    Raises:
        QueueRefused: there is one of that name.
        QueueUnavailable: it does not come up.
    """
    where = _where(name, namespace)
    hosted = ray.remote(QueueActor).options(
        name=name,
        namespace=namespace,
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=MAX_CALLERS,
    )
    try:
        actor = cast("ActorHandle[Any]", hosted.remote(limits))
    except ValueError as error:
        raise QueueRefused(
            f"there is a queue {where} already, of another run of that name on this Ray cluster: "
            "wait for it to end, or give this run another name"
        ) from error
    try:
        ray.get(actor.call.remote("term"), timeout=START_SECONDS)
    except RayError as error:
        ray.kill(actor)
        raise QueueUnavailable(
            f"the queue {where} did not start within {START_SECONDS:.0f} s "
            f"({type(error).__name__}): see whether the Ray cluster is alive"
        ) from error
    return RayJobQueue(actor, where=where)


def join_ray_queue(name: str, namespace: str) -> RayJobQueue:
    """A queue that somebody else started.

    Raises:
        QueueUnavailable: there is none (yet).
    """
    where = _where(name, namespace)
    try:
        actor = ray.get_actor(name, namespace=namespace)
    except (ValueError, RayError) as error:
        raise QueueUnavailable(
            f"there is no queue {where} on this Ray cluster: its driver has ended, or has yet to "
            "start it"
        ) from error
    return RayJobQueue(actor, where=where)


def _where(name: str, namespace: str) -> str:
    return f"ray://{namespace}/{name}"
