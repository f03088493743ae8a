"""Groups waiting to be scored and their scores: executed at least once, counted exactly once.

The queue is a cache that can be rebuilt; the learner's checkpoint is the truth. Bodies are opaque
bytes here (``rewardtune.transport.wire`` makes and reads them), keyed by (term, ordinal). Every
implementation keeps the rules below and passes tests/rewardtune/transport/queue/test_job_queue.py:

- **Put** is idempotent: what is queued, leased, scored, dead or before the frontier is left alone.
- **Lease** hands a job to one worker for ``lease_seconds``, which ``renew`` prolongs and only its
  owner can. An expired lease goes to whoever asks next, as another delivery; until somebody asks,
  its owner may still renew it. Jobs that came back go first, then new ones, both in the order of
  their puts.
- **Commit** is atomic and the first one wins, whoever holds the lease by then, and even if the
  queue was emptied since and does not know the job. Of a term that is over, or an ordinal outside
  [frontier, frontier + capacity), it is refused.
- **Only attributed failures count.** The same exception twice, or three crashes or timeouts in
  all, kill a job; so do ``max_deliveries`` deliveries that nobody reported on. A dead job keeps a
  dead letter, and is a result without a score, so that its batch closes.
- **Give back** returns a job at once, as if it had never been leased.
- **Nothing in it is trusted.** A put carries the run's seal of the group, a result carries it back
  with the name of its worker. What the learner finds wrong it refuses: the result is forgotten and
  counted against that worker, and the job waits again behind those that wait, with the failures it
  had; or it is forgotten too, so that the group is drawn again.
- **A term** fences: opening one forgets everything of older ones, and everything that names an
  older one raises ``StaleTerm``.
- **Admission is the only back-pressure**: more unconsumed ordinals than the term's capacity are a
  bug of the caller, which raises. Nothing blocks on a full queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class QueueUnavailable(ConnectionError):
    """The queue cannot be reached, or has lost the term (restarted, wiped): try again."""


class QueueDamaged(QueueUnavailable):
    """Somebody has written into the queue what no queue writes: the learner clears it."""


class QueueRefused(RuntimeError):
    """The queue answers but will not serve: wrong password, too old, another run's."""


class QueueFull(RuntimeError):
    """More ordinals were put than the term admits: the caller has lost count."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """When a job is given up, and how long a silent worker keeps one."""

    lease_seconds: float = 30.0
    same_exception: int = 2
    """Exceptions with the same message that kill a job."""
    max_crashes: int = 3
    """Crashes, hangs and differing exceptions, in all, that kill a job."""
    max_deliveries: int = 10
    """Deliveries of which nobody reported the end."""


@dataclass(frozen=True, slots=True)
class Term:
    """What the learner opened, and what a worker must know before it reads a job."""

    number: int
    spec: bytes
    """The run's spec for workers, as ``reward_workers.scoring.spec`` writes it."""
    capacity: int
    """Ordinals that may be unconsumed at once: (depth + 1) batches."""
    run_id: str = ""
    """Of the run: a queue serves one. Empty in a term that was opened before there were ids."""
    seal: bytes = b""
    """The run's, by which its learners know a term that one of them opened."""


@dataclass(frozen=True, slots=True)
class Job:
    term: int
    ordinal: int
    body: bytes
    """A group."""
    delivery: int
    """How many times it has been handed out, this time included."""
    lease: str
    """Names this delivery; meaningless to anyone but the queue."""
    seal: bytes = b""
    """What was put with the group; meaningless to anyone but the run's learner."""


class CommitOutcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """Somebody else was first; theirs counts, and it holds the same bytes."""
    STALE = "stale"
    """The term is over, or the batch consumed: nobody waits for it any more."""


class FailureKind(StrEnum):
    EXCEPTION = "exception"
    CRASH = "crash"
    TIMEOUT = "timeout"
    INVALID = "invalid"
    """The scorer answered with NaN or the wrong shape; counted like an exception."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why scoring a job failed, as seen by the process that outlived it."""

    kind: FailureKind
    message: str
    """One line; two exceptions are the same if theirs are equal."""
    traceback: str = ""


class FailOutcome(StrEnum):
    RETRY = "retry"
    DEAD = "dead"
    STALE = "stale"
    """The lease had passed to somebody else, or the job is settled: nothing was counted."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a job: exactly one of the two is there."""

    scored: bytes | None = None
    """A scored group."""
    dead: bytes | None = None
    """The group, which nobody could score."""
    seal: bytes = b""
    """What was put with the group, if the result is of it."""
    worker: str = field(default="", compare=False)
    """Who reported it, by the name that it gave itself."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    term: int
    ordinal: int
    body: bytes
    failures: Sequence[Failure]
    worker: str
    """Who had it last."""
    reward_digest: str
    """Of that worker."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """What a reward worker says of itself with every heartbeat."""

    worker: str
    """Unique name: one per process start."""
    reward_digest: str
    dataset_digest: str
    state: str
    """starting, ready, refused, draining."""
    num_scorers: int
    busy: int = 0
    metrics_address: str = ""
    """host:port that Prometheus can scrape."""
    message: str = ""
    """Why it was refused, say."""
    num_groups: int = 0
    """Groups it had scored since its process began, failures included."""
    core_seconds: float = 0.0
    """Seconds that those occupied its scorers, times the threads of each."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A moment of the queue, for metrics, ``status`` and scaling.

    Counts that have a default are since the term began.
    """

    term: int
    frontier: int
    """First ordinal not consumed."""
    backlog: int
    """Jobs that nobody holds."""
    leased: int
    results: int
    """Scored or dead, not consumed."""
    oldest_seconds: float
    """Age of the oldest job without a result; 0 if there is none."""
    redeliveries: int = 0
    duplicate_commits: int = 0
    stale_commits: int = 0
    dead: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By kind."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Results that the learner refused, by worker: ``MAX_NAMED`` of them, the others together."""
    bad_entries: int = 0
    """What lay among the jobs and was none."""


MAX_NAMED = 100
"""Workers whose refused results are counted each for itself."""
OTHERS = "(others)"


class JobQueue(Protocol):
    """See the module. Safe to use from several threads.

    Every method may raise ``QueueUnavailable``; nothing is half done then, and doing it again is
    right. Methods that take a term raise ``StaleTerm`` if a higher one was opened, and
    ``QueueUnavailable`` if the queue knows of none, or of a lower one only. Methods that take a
    job never raise ``StaleTerm``: they answer that it is stale, or no longer this worker's.
    """

    # The learner and whoever places draws.

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        """Take the queue over; again for the same term: assert it after a reconnect.

        A queue that already knows the term keeps what it holds, and its frontier if that is
        higher. Any other forgets all that lies in it before anybody can lease.

        Args:
            afresh: forget everything, and believe nothing that the queue says of its term: for
                a learner that knows that no learner wrote it.

        Raises:
            StaleTerm: a higher term was opened.
            QueueRefused: it is another run's, or knows the term with another spec.
            QueueDamaged: what it says of its term is nonsense.
        """
        ...

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        """Admit a job; False if there is nothing to do.

        Args:
            seal: handed out with the job, and back with its result.

        Raises:
            QueueFull: the ordinal is ``capacity`` or more beyond the frontier.
        """
        ...

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        """Those of which the queue knows nothing: neither queued, leased, scored nor dead.

        Ordinals before the frontier are not missing.
        """
        ...

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        """Those that have one; they stay until consumed."""
        ...

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool) -> None:
        """Forget a result, and count it against the worker that reported it.

        Args:
            keep_group: the job waits again, if the queue still has its body; otherwise it is
                forgotten too, and missing.
        """
        ...

    def wait(self, term: int, *, timeout_seconds: float) -> None:
        """Return when a result may have come since the last call, or when the time is over."""
        ...

    def consume(self, term: int, *, before: int) -> None:
        """Move the frontier: forget results, jobs and late commits of smaller ordinals."""
        ...

    # Reward workers.

    def term(self) -> Term | None:
        """What is being worked on; None before a learner came."""
        ...

    def heartbeat(self, record: WorkerRecord, *, ttl_seconds: float) -> bool:
        """Be listed as a worker for so long; True if it was asked to drain."""
        ...

    def deregister(self, worker: str) -> None: ...

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        """Up to ``max_jobs`` jobs, those that came back first; empty if none came in time.

        A queue that knows no term has none: the worker waits here for a learner.
        """
        ...

    def renew(self, job: Job, worker: str) -> bool:
        """Start the lease anew; False if it is no longer this worker's."""
        ...

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome: ...

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome: ...

    def give_back(self, job: Job, worker: str) -> None:
        """Of a lease that has passed on: nothing happens."""
        ...

    # Operators.

    def workers(self) -> list[WorkerRecord]: ...

    def request_drain(self, worker: str) -> None:
        """Its next heartbeat tells it."""
        ...

    def stats(self) -> QueueStats:
        """Zeros and term -1 before a learner came."""
        ...

    def dead_letters(self) -> list[DeadLetter]: ...

    def close(self) -> None:
        """Let go of connections; what is queued stays."""
        ...
