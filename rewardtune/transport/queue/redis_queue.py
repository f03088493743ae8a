"""The job queue on Redis streams: for production, and for reward workers that live outside Ray.

Every step that changes something is one Lua script (``rewardtune.transport.queue.redis_scripts``),
so it happens as a whole or not at all, and a second time changes nothing. What is here gives the
scripts their arguments, reads their answers and waits. Nothing waits inside a script: a worker
that finds no job sleeps on a list that a put pushes one word to, which wakes one worker; the
learner sleeps on a stream of one entry, which wakes all who read it.
"""

from __future__ import annotations

import hashlib
import re
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import redis
from redis.exceptions import NoPermissionError, NoScriptError

from rewardtune.transport.queue.address import without_password
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    DeadLetter,
    FailOutcome,
    Failure,
    FailureKind,
    Job,
    QueueDamaged,
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
    is_passing,
    key_root,
    lacks_right,
    open_connection,
    own_errors,
)
from rewardtune.transport.queue.redis_scripts.catalogue import every_script, whole_script
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.term import StaleTerm

MAX_SLEEP_SECONDS = 1.0
"""Between two looks for leases that expired or a term that is over."""

_USUAL_LIMITS = QueueLimits()
_WORKER_COUNTS = ("num_scorers", "busy", "num_groups")
_COUNTS = (
    *("results", "redeliveries", "duplicate_commits", "stale_commits", "dead", "bad_entries"),
)
MAX_NAME_BYTES = 1000
"""Of a worker's name that is kept with a result."""
_SIZE = struct.Struct(">H")
"""Of a result's worker and of its seal, before each."""


class RedisJobQueue:
    """One client of a run's queue; as many as there are may share it. See ``JobQueue``.

    The limits of whoever opened the term hold for all.
    """

    def __init__(self, client: redis.Redis, *, run: str, limits: QueueLimits, where: str) -> None:
        self._client = client
        self._run = run
        self._root = key_root(run)
        self._limits = limits
        self._where = where
        self._bell_seen: Any = "0-0"
        self._hashes: dict[str, str] = {}

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        run: str,
        limits: QueueLimits = _USUAL_LIMITS,
        security: SecurityConfig = PLAIN,
    ) -> RedisJobQueue:
        """Raises:
        ValueError: ``run`` or ``url`` is malformed, or a file of ``security`` will not do.
        QueueUnavailable: nobody answers there.
        QueueRefused: the server is too old, would drop jobs, or denies the user something.
        """
        key_root(run)  # before anybody is connected to
        if limits.lease_seconds < 0.001:
            raise ValueError(f"lease_seconds must be 0.001 or more, got {limits.lease_seconds}")
        client = open_connection(url, security)
        return cls(client, run=run, limits=limits, where=without_password(url))

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        self._call(
            "OPEN_TERM",
            term.number,
            term.spec,
            term.capacity,
            frontier,
            round(self._limits.lease_seconds * 1000),
            self._limits.same_exception,
            self._limits.max_crashes,
            self._limits.max_deliveries,
            term.run_id,
            term.seal,
            int(afresh),
        )
        if afresh:
            self._bell_seen = "0-0"

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        return self._call("PUT", term, ordinal, body, seal) == [1]

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        return [int(ordinal) for ordinal in self._call("MISSING", term, *ordinals)]

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        answer = self._call("RESULTS", term, *ordinals)
        return {int(ordinal): _result(stored) for ordinal, stored in _grouped(answer, 2)}

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool) -> None:
        self._call("REFUSE", term, ordinal, worker, int(keep_group))

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        until = time.monotonic() + timeout_seconds
        while True:
            self._call("FENCE", term)
            left = until - time.monotonic()
            if left <= 0:
                return
            block_ms = max(1, round(min(left, MAX_SLEEP_SECONDS) * 1000))
            with self._errors():
                rung: Any = self._client.xread({self._key("bell"): self._bell_seen}, block=block_ms)
            if rung:
                self._bell_seen, told = rung[0][1][-1]
                if told.get(b"term") == b"%d" % term:
                    return

    def consume(self, term: int, *, before: int) -> None:
        self._call("CONSUME", term, before)

    def term(self) -> Term | None:
        names = ["number", "spec", "capacity", "run_id", "seal"]
        with self._errors():
            found: Any = self._client.hmget(self._key("term"), names)
        number, spec, capacity, run_id, seal = found
        if number is None:
            return None
        try:
            return Term(
                int(number), spec or b"", int(capacity), (run_id or b"").decode(), seal or b""
            )
        except (TypeError, ValueError):
            raise self._damaged("its term") from None

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        told = [
            part for field in fields(record) for part in (field.name, getattr(record, field.name))
        ]
        ttl_ms = max(1, round(ttl_seconds * 1000))
        return self._call("HEARTBEAT", record.worker, ttl_ms, *told) == [1]

    def deregister(self, worker: str) -> None:
        self._call("DEREGISTER", worker)

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        until = time.monotonic() + timeout_seconds
        while True:
            term, *taken = self._call("TAKE", worker, reward_digest, max_jobs)
            left = until - time.monotonic()
            if taken or left <= 0:
                return [
                    Job(
                        term=int(term),
                        ordinal=int(ordinal),
                        body=body,
                        delivery=int(delivery),
                        lease=lease.decode(),
                        seal=seal,
                    )
                    for ordinal, body, delivery, lease, seal in _grouped(taken, 5)
                ]
            sleep = min(left, MAX_SLEEP_SECONDS, self._limits.lease_seconds / 3)
            with self._errors():
                # To Redis a timeout of 0 is for ever, and less than a millisecond is 0.
                self._client.blpop([self._key("calls")], timeout=max(0.01, sleep))

    def renew(self, job: Job, worker: str) -> bool:
        return self._call("RENEW", job.term, job.ordinal, worker, job.lease) == [1]

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        (outcome,) = self._call("COMMIT", job.term, job.ordinal, _stored(worker, job.seal, scored))
        return CommitOutcome(outcome.decode())

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        (outcome,) = self._call(
            "FAIL",
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
        self._call("GIVE_BACK", job.term, job.ordinal, worker, job.lease)

    def workers(self) -> list[WorkerRecord]:
        found = [_worker_record(told) for told in self._call("LIST_WORKERS")]
        return sorted((r for r in found if r is not None), key=lambda record: record.worker)

    def request_drain(self, worker: str) -> None:
        self._call("REQUEST_DRAIN", worker)

    def stats(self) -> QueueStats:
        counts = [*_COUNTS, *(f"failures:{kind}" for kind in FailureKind)]
        answer = self._call("STATS", *counts)
        term, frontier, jobs, pending, loose, age_ms = map(int, answer[:6])
        refused, found = answer[6], map(int, answer[7:] or [0] * len(counts))
        count = dict(zip(counts, found, strict=True))
        return QueueStats(
            term=term,
            frontier=frontier,
            backlog=jobs - pending + loose,
            leased=pending - loose,
            oldest_seconds=age_ms / 1000,
            failures={kind.value: count[f"failures:{kind}"] for kind in FailureKind},
            refused={
                _text(worker): int(number)
                for worker, number in _grouped(refused, 2)
                if number.isdigit()
            },
            **{name: count[name] for name in _COUNTS},
        )

    def dead_letters(self) -> list[DeadLetter]:
        with self._errors():
            entries: Any = self._client.xrange(self._key("letters"))
        letters = [_dead_letter(told) for _, told in entries]
        return [letter for letter in letters if letter is not None]

    def close(self) -> None:
        self._client.close()

    def _key(self, name: str) -> str:
        return self._root + name

    def _call(self, name: str, *arguments: Any) -> list[Any]:
        """What the script answered, if it did not refuse."""
        word: bytes
        answer: list[Any]
        with self._errors():
            word, *answer = self._run_script(name, arguments)
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
            case b"damaged":
                raise self._damaged(_text(answer[0]))
            case b"other_run":
                raise QueueRefused(
                    f"the queue '{self._run}' at {self._where} is a queue of another run "
                    f"({_text(answer[0]) or 'of no id'}): give this run another name or another "
                    f"database number, or, if that run is gone, DEL {self._key('term')} there"
                )
            case _:
                frontier, capacity = map(int, answer)
                raise QueueFull(
                    f"ordinal {arguments[1]} was put, but with {frontier} the first not consumed "
                    f"and room for {capacity}, the last admitted is {frontier + capacity - 1}"
                )

    def _run_script(self, name: str, arguments: Sequence[Any]) -> Any:
        """By its hash alone: who may load scripts may have Redis run any."""
        if name not in self._hashes:
            script = whole_script(name).encode()
            self._hashes[name] = hashlib.sha1(script, usedforsecurity=False).hexdigest()
        told = (self._hashes[name], 1, self._key("term"), *arguments)
        try:
            return self._client.evalsha(*told)
        except NoScriptError:
            self._load_scripts()
            return self._client.evalsha(*told)

    def _load_scripts(self) -> None:
        try:
            for script in every_script():
                self._client.script_load(script)
        except NoPermissionError as error:
            raise QueueUnavailable(
                f"Redis at {self._where} does not know the queue's scripts, and its user may not "
                "load them: the learner does when it opens its term; if it has, start this worker "
                "from the version of the run"
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with own_errors(self._where):
            try:
                yield
            except redis.ResponseError as error:
                # A script that fails half way, or a key of another type: own scripts never do so
                # with what they wrote themselves.
                if re.search(r"user_script|Error running script|WRONGTYPE", str(error)) and not (
                    lacks_right(error) or is_passing(error)
                ):
                    raise self._damaged(str(error)) from error
                raise

    def _damaged(self, what: str) -> QueueDamaged:
        return QueueDamaged(
            f"the queue of run '{self._run}' at {self._where} holds what no queue writes ({what}): "
            "the learner clears it; see who has its password"
        )


def _grouped(values: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def _stored(worker: str, seal: bytes, scored: bytes) -> bytes:
    name = worker.encode()[:MAX_NAME_BYTES]
    return b"".join((b"s", _SIZE.pack(len(name)), name, _SIZE.pack(len(seal)), seal, scored))


def _result(stored: bytes) -> Result:
    """As it was stored; what nobody can have committed is a score of no bytes, by nobody."""
    try:
        tag, place, told = stored[:1], 1, []
        for _ in ("worker", "seal"):
            (size,) = _SIZE.unpack_from(stored, place)
            place += _SIZE.size + size
            told.append(stored[place - size : place])
    except struct.error:
        return Result(scored=b"")
    worker, body = _text(told[0]), stored[place:]
    if tag == b"d":
        return Result(dead=body, seal=told[1], worker=worker)
    return Result(scored=body, seal=told[1], worker=worker)


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _bytes(text: str) -> bytes:
    # A message may quote a file name that is not Unicode.
    return text.encode(errors="backslashreplace")


def _worker_record(told: Sequence[bytes]) -> WorkerRecord | None:
    """None for what no worker said."""
    try:
        text: dict[str, Any] = {name.decode(): value.decode() for name, value in _grouped(told, 2)}
        counts: dict[str, Any] = {
            name: int(text.pop(name)) for name in _WORKER_COUNTS if name in text
        }
        core_seconds = float(text.pop("core_seconds", 0.0))
        return WorkerRecord(**text, **counts, core_seconds=core_seconds)
    except (TypeError, ValueError):
        return None


def _dead_letter(told: dict[bytes, bytes]) -> DeadLetter | None:
    """None for what no queue wrote."""

    def failure(i: int) -> Failure:
        def part(name: str) -> str:
            return told[f"failure:{i}:{name}".encode()].decode()

        return Failure(FailureKind(part("kind")), part("message"), part("traceback"))

    try:
        return DeadLetter(
            term=int(told[b"term"]),
            ordinal=int(told[b"ordinal"]),
            body=told[b"body"],
            failures=tuple(failure(1 + i) for i in range(int(told[b"num_failures"]))),
            worker=told[b"worker"].decode(),
            reward_digest=told[b"reward_digest"].decode(),
        )
    except (KeyError, ValueError):
        return None
