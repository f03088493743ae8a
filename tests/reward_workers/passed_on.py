"""A queue in front of another, whose calls a test watches or spoils."""

from __future__ import annotations

from collections.abc import Sequence

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    DeadLetter,
    FailOutcome,
    Failure,
    Job,
    JobQueue,
    QueueStats,
    Result,
    Term,
    WorkerRecord,
)


class PassedOn:
    """Passes every call on; raises ``spoiled`` first, while there is one."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self.spoiled: Exception | None = None
        self.num_renewed = 0
        self.num_refused = 0
        self.may_renew = True

    def _pass(self) -> JobQueue:
        if self.spoiled is not None:
            self.num_refused += 1
            raise self.spoiled
        return self._queue

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        self._pass().open_term(term, frontier=frontier, afresh=afresh)

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        return self._pass().put(term, ordinal, body, seal=seal)

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool) -> None:
        self._pass().refuse(term, ordinal, worker=worker, keep_group=keep_group)

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        return self._pass().missing(term, ordinals)

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        return self._pass().results(term, ordinals)

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        self._pass().wait(term, timeout_seconds=timeout_seconds)

    def consume(self, term: int, *, before: int) -> None:
        self._pass().consume(term, before=before)

    def term(self) -> Term | None:
        return self._pass().term()

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        return self._pass().heartbeat(record, ttl_seconds=ttl_seconds)

    def deregister(self, worker: str) -> None:
        self._pass().deregister(worker)

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        return self._pass().lease(
            worker,
            reward_digest=reward_digest,
            max_jobs=max_jobs,
            timeout_seconds=timeout_seconds,
        )

    def renew(self, job: Job, worker: str) -> bool:
        passed = self._pass()
        if not self.may_renew:
            return True  # the worker believes it, and the queue does not
        self.num_renewed += 1
        return passed.renew(job, worker)

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        return self._pass().commit(job, worker, scored)

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        return self._pass().fail(job, worker, failure)

    def give_back(self, job: Job, worker: str) -> None:
        self._pass().give_back(job, worker)

    def workers(self) -> list[WorkerRecord]:
        return self._pass().workers()

    def request_drain(self, worker: str) -> None:
        self._pass().request_drain(worker)

    def stats(self) -> QueueStats:
        return self._pass().stats()

    def dead_letters(self) -> list[DeadLetter]:
        return self._pass().dead_letters()

    def close(self) -> None:
        self._pass().close()
