"""The job queue on Redis streams: for production, and for reward workers that live outside Ray.

Every step that changes something is one Lua script (``rewardtune.transport.queue.redis_scripts``),
so it happens as a whole or not at all, and a second time changes nothing. What is here gives the
scripts their arguments, reads their answers and waits. Nothing waits inside a script: a worker
that finds no job sleeps on a list that a put pushes one word to, which wakes one worker; the
learner sleeps on a stream of one entry, which wakes all who read it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import redis
from redis.commands.core import Script

from rewardtune.transport.queue import redis_scripts
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    DeadLetter,
    FailOutcome,
    Failure,
    FailureKind,
    Job,
    QueueFull,
    QueueLimits,
    QueueRefused,
    QueueStats,
    QueueUnavailable,
    Result,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.redis_connection import (
    open_connection,
    own_errors,
    without_password,
)
from rewardtune.transport.term import StaleTerm

MAX_SLEEP_SECONDS = 1.0
"""Between two looks for leases that expired or a term that is over."""

_USUAL_LIMITS = QueueLimits()
_WORKER_COUNTS = ("num_scorers", "busy", "num_groups")
_COUNTS = ("results", "redeliveries", "duplicate_commits", "stale_commits", "dead")


class RedisJobQueue:
    """One client of a run's queue; as many as there are may share it. See ``JobQueue``.

    The limits of whoever opened the term hold for all.
    """

    def __init__(self, client: redis.Redis, *, run: str, limits: QueueLimits, where: str) -> None:
        self._client = client
        self._run = run
        self._limits = limits
        self._where = where
        self._bell_seen: Any = "0-0"
        self._scripts: dict[str, Script] = {}

    @classmethod
    def connect(cls, url: str, *, run: str, limits: QueueLimits = _USUAL_LIMITS) -> RedisJobQueue:
        """Raises:
        ValueError: ``run`` or ``url`` is malformed.
        QueueUnavailable: nobody answers there.
        QueueRefused: the server is too old, would drop jobs, or denies the user something.
        """
        if not re.fullmatch(r"[A-Za-z0-9._-]+", run):
            raise ValueError(
                f"a run's name in Redis is made of letters, digits, '.', '_' and '-', got '{run}'"
            )
        if limits.lease_seconds < 0.001:
            raise ValueError(f"lease_seconds must be 0.001 or more, got {limits.lease_seconds}")
        return cls(open_connection(url), run=run, limits=limits, where=without_password(url))

    def open_term(self, term: Term, *, frontier: int) -> None:
        self._call(
            redis_scripts.OPEN_TERM,
            term.number,
            term.spec,
            term.capacity,
            frontier,
            round(self._limits.lease_seconds * 1000),
            self._limits.same_exception,
            self._limits.max_crashes,
            self._limits.max_deliveries,
        )

    def put(self, term: int, ordinal: int, body: bytes) -> bool:
        return self._call(redis_scripts.PUT, term, ordinal, body) == [1]

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        return [int(ordinal) for ordinal in self._call(redis_scripts.MISSING, term, *ordinals)]

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        answer = self._call(redis_scripts.RESULTS, term, *ordinals)
        return {int(ordinal): _result(stored) for ordinal, stored in _grouped(answer, 2)}

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        until = time.monotonic() + timeout_seconds
        while True:
            self._call(redis_scripts.FENCE, term)
            left = until - time.monotonic()
            if left <= 0:
                return
            block_ms = max(1, round(min(left, MAX_SLEEP_SECONDS) * 1000))
            with own_errors(self._where):
                rung: Any = self._client.xread({self._key("bell"): self._bell_seen}, block=block_ms)
            if rung:
                self._bell_seen, told = rung[0][1][-1]
                if int(told[b"term"]) == term:
                    return

    def consume(self, term: int, *, before: int) -> None:
        self._call(redis_scripts.CONSUME, term, before)

    def term(self) -> Term | None:
        with own_errors(self._where):
            found: Any = self._client.hmget(self._key("term"), ["number", "spec", "capacity"])
        number, spec, capacity = found
        if number is None:
            return None
        return Term(number=int(number), spec=spec, capacity=int(capacity))

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        told = [
            part for field in fields(record) for part in (field.name, getattr(record, field.name))
        ]
        ttl_ms = max(1, round(ttl_seconds * 1000))
        return self._call(redis_scripts.HEARTBEAT, record.worker, ttl_ms, *told) == [1]

    def deregister(self, worker: str) -> None:
        self._call(redis_scripts.DEREGISTER, worker)

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        until = time.monotonic() + timeout_seconds
        while True:
            term, *taken = self._call(redis_scripts.TAKE, worker, reward_digest, max_jobs)
            left = until - time.monotonic()
            if taken or left <= 0:
                return [
                    Job(
                        term=int(term),
                        ordinal=int(ordinal),
                        body=body,
                        delivery=int(delivery),
                        lease=lease.decode(),
                    )
                    for ordinal, body, delivery, lease in _grouped(taken, 4)
                ]
            sleep = min(left, MAX_SLEEP_SECONDS, self._limits.lease_seconds / 3)
            with own_errors(self._where):
                # To Redis a timeout of 0 is for ever, and less than a millisecond is 0.
                self._client.blpop([self._key("calls")], timeout=max(0.01, sleep))

    def renew(self, job: Job, worker: str) -> bool:
        return self._call(redis_scripts.RENEW, job.term, job.ordinal, worker, job.lease) == [1]

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        (outcome,) = self._call(redis_scripts.COMMIT, job.term, job.ordinal, scored)
        return CommitOutcome(outcome.decode())

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        (outcome,) = self._call(
            redis_scripts.FAIL,
            job.term,
            job.ordinal,
            worker,
            job.lease,
            failure.kind,
            _bytes(failure.message),
            _bytes(failure.traceback),
        )
        return FailOutcome(outcome.decode())

    def give_back(self, job: Job, worker: str) -> None:
        self._call(redis_scripts.GIVE_BACK, job.term, job.ordinal, worker, job.lease)

    def workers(self) -> list[WorkerRecord]:
        found = [_worker_record(told) for told in self._call(redis_scripts.LIST_WORKERS)]
        return sorted(found, key=lambda record: record.worker)

    def request_drain(self, worker: str) -> None:
        self._call(redis_scripts.REQUEST_DRAIN, worker)

    def stats(self) -> QueueStats:
        counts = [*_COUNTS, *(f"failures:{kind}" for kind in FailureKind)]
        term, frontier, jobs, pending, loose, age_ms, *found = map(
            int, self._call(redis_scripts.STATS, *counts)
        )
        count = dict(zip(counts, found or [0] * len(counts), strict=True))
        return QueueStats(
            term=term,
            frontier=frontier,
            backlog=jobs - pending + loose,
            leased=pending - loose,
            oldest_seconds=age_ms / 1000,
            failures={kind.value: count[f"failures:{kind}"] for kind in FailureKind},
            **{name: count[name] for name in _COUNTS},
        )

    def dead_letters(self) -> list[DeadLetter]:
        with own_errors(self._where):
            entries: Any = self._client.xrange(self._key("letters"))
        return [_dead_letter(told) for _, told in entries]

    def close(self) -> None:
        self._client.close()

    def _key(self, name: str) -> str:
        return f"{{{self._run}}}:{name}"

    def _call(self, text: str, *arguments: Any) -> list[Any]:
        """What the script answered, if it did not refuse."""
        if text not in self._scripts:
            self._scripts[text] = self._client.register_script(redis_scripts.SHARED + text)
        word: bytes
        answer: list[Any]
        with own_errors(self._where):
            word, *answer = self._scripts[text](keys=[self._key("term")], args=arguments)
        match word:
            case b"ok":
                return answer
            case b"no_term":
                raise QueueUnavailable(
                    f"the queue of run '{self._run}' at {self._where} knows no term: the learner "
                    "has yet to open it, or Redis lost it and the learner will open it again"
                )
            case b"lost_term":
                raise QueueUnavailable(
                    f"the queue of run '{self._run}' at {self._where} knows of term "
                    f"{int(answer[0])} only, not of {arguments[0]}: the learner will open it again"
                )
            case b"stale_term":
                raise StaleTerm(
                    f"term {arguments[0]} of run '{self._run}' is over: term {int(answer[0])} has "
                    "taken over its queue"
                )
            case b"other_run":
                raise QueueRefused(
                    f"the queue '{self._run}' at {self._where} is a queue of another run, whose "
                    f"term {arguments[0]} has another spec: give this run another name or another "
                    "database number"
                )
            case _:
                frontier, capacity = map(int, answer)
                raise QueueFull(
                    f"ordinal {arguments[1]} was put, but with {frontier} the first not consumed "
                    f"and room for {capacity}, the last admitted is {frontier + capacity - 1}"
                )


def _grouped(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _result(stored: bytes) -> Result:
    tag, body = stored[:1], stored[1:]
    return Result(scored=body) if tag == b"s" else Result(dead=body)


def _bytes(text: str) -> bytes:
    # A message may quote a file name that is not Unicode.
    return text.encode(errors="backslashreplace")


def _worker_record(told: Sequence[bytes]) -> WorkerRecord:
    text: dict[str, Any] = {name.decode(): value.decode() for name, value in _grouped(told, 2)}
    counts: dict[str, Any] = {name: int(text.pop(name)) for name in _WORKER_COUNTS if name in text}
    core_seconds = float(text.pop("core_seconds", 0.0))
    return WorkerRecord(**text, **counts, core_seconds=core_seconds)


def _dead_letter(told: dict[bytes, bytes]) -> DeadLetter:
    def failure(i: int) -> Failure:
        def part(name: str) -> str:
            return told[f"failure:{i}:{name}".encode()].decode()

        return Failure(FailureKind(part("kind")), part("message"), part("traceback"))

    return DeadLetter(
        term=int(told[b"term"]),
        ordinal=int(told[b"ordinal"]),
        body=told[b"body"],
        failures=tuple(failure(1 + i) for i in range(int(told[b"num_failures"]))),
        worker=told[b"worker"].decode(),
        reward_digest=told[b"reward_digest"].decode(),
    )
