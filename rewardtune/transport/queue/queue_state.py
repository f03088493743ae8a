"""The rules of the job queue as a state machine: no clock, no locks, no input or output.

Callers say what time it is, in seconds of a clock that never goes back. ``memory_queue`` puts a
lock and a clock around it; ``tests.faults.simulation`` runs it through schedules of faults.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rewardtune.transport.queue.job_queue import (
    MAX_NAMED,
    OTHERS,
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
)
from rewardtune.transport.term import StaleTerm

MAX_DEAD_LETTERS = 1000
"""Of one term; older ones make room."""

_COUNTED_ALIKE = (FailureKind.EXCEPTION, FailureKind.INVALID)


@dataclass(slots=True)
class _Entry:
    """A job without a result."""

    place: int
    """In the order of puts."""
    ordinal: int
    body: bytes
    seal: bytes
    put_at: float
    is_free: bool = True
    """Nobody's lease is running; the last one may still be renewed until somebody takes it."""
    lease: str = ""
    """Name of the delivery that is out; empty if none is."""
    expires_at: float = 0.0
    worker: str = ""
    """Who had it last."""
    reward_digest: str = ""
    deliveries: int = 0
    failures: list[Failure] = field(default_factory=list)
    is_returned: bool = False
    """It lies in the heap of returned jobs."""
    is_timed: bool = False
    """It lies in the heap of deadlines."""


class QueueState:
    """Jobs, results and counts of one term. See ``JobQueue`` for what each call means.

    Heaps hold what was once true and are corrected when something is taken from them, so every
    call takes at most logarithmic time in the number of jobs it touches.
    """

    def __init__(self, limits: QueueLimits, *, instance: str = "") -> None:
        """Know no term.

        Args:
            instance: begins the name of every lease, so that a queue that was lost and the one in
                its place name no two leases alike.
        """
        self._limits = limits
        self._instance = instance
        self._num_leases = 0
        self._num_puts = 0
        self.num_rings = 0
        """Grows whenever there is another result, and when a term is opened."""
        self._term: Term | None = None
        self._forget_term()

    def _forget_term(self) -> None:
        self._frontier = 0
        self._entries: dict[int, _Entry] = {}
        self._fresh: deque[_Entry] = deque()
        self._returned: list[tuple[int, _Entry]] = []
        self._deadlines: list[tuple[float, int, _Entry]] = []
        self._num_free = 0
        self._results: dict[int, Result] = {}
        self._settled: dict[int, _Entry] = {}
        """Jobs that have their result, for as long as it may be refused."""
        self._dead_letters: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)
        self._redeliveries = 0
        self._duplicate_commits = 0
        self._stale_commits = 0
        self._num_dead = 0
        self._num_failures = dict.fromkeys(FailureKind, 0)
        self._refused: dict[str, int] = {}

    # The learner and whoever places draws.

    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        known = None if afresh else self._term
        if known is not None and known.run_id not in ("", term.run_id):
            raise QueueRefused(
                f"this is the queue of another run ({known.run_id}): give this run another name"
            )
        if known is not None and term.number == known.number:
            if term.spec != known.spec:
                raise QueueRefused(
                    f"this is the queue of another run, whose term {term.number} has another "
                    "spec: give this run another name"
                )
            self._term = term
            self._move_frontier(frontier)
        else:
            if known is not None:
                self._refuse_older(term.number, known)
            self._forget_term()
            self._term, self._frontier = term, frontier
        self.num_rings += 1

    def put(self, term: int, ordinal: int, body: bytes, *, now: float, seal: bytes = b"") -> bool:
        known = self._known(term)
        if ordinal >= self._frontier + known.capacity:
            raise QueueFull(
                f"ordinal {ordinal} was put, but with {self._frontier} the first not consumed and "
                f"room for {known.capacity}, the last admitted is "
                f"{self._frontier + known.capacity - 1}"
            )
        if ordinal < self._frontier or ordinal in self._entries or ordinal in self._results:
            return False
        self._enqueue(
            _Entry(place=self._num_puts, ordinal=ordinal, body=body, seal=seal, put_at=now)
        )
        return True

    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        self._known(term)
        return [
            ordinal
            for ordinal in ordinals
            if ordinal >= self._frontier
            and ordinal not in self._entries
            and ordinal not in self._results
        ]

    def results(self, term: int, ordinals: Sequence[int]) -> dict[int, Result]:
        self._known(term)
        return {ordinal: self._results[ordinal] for ordinal in ordinals if ordinal in self._results}

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool, now: float) -> None:
        self._known(term)
        if self._results.pop(ordinal, None) is None:
            return
        name = worker if worker in self._refused or len(self._refused) < MAX_NAMED else OTHERS
        self._refused[name] = self._refused.get(name, 0) + 1
        done = self._settled.pop(ordinal, None)
        if keep_group and done is not None:
            again = _Entry(
                place=self._num_puts,
                ordinal=ordinal,
                body=done.body,
                seal=done.seal,
                put_at=now,
                failures=done.failures,
                deliveries=len(done.failures),
            )
            self._enqueue(again)

    def check_term(self, term: int) -> None:
        """Raises:
        StaleTerm: it is over.
        QueueUnavailable: it was never opened here, or was lost.
        """
        self._known(term)

    def consume(self, term: int, *, before: int) -> None:
        self._known(term)
        self._move_frontier(before)

    # Reward workers.

    def term(self) -> Term | None:
        return self._term

    def lease(self, worker: str, *, reward_digest: str, max_jobs: int, now: float) -> list[Job]:
        self._release_expired(now)
        taken: list[Job] = []
        while len(taken) < max_jobs and (entry := self._next_free()) is not None:
            unreported = entry.deliveries - len(entry.failures)
            if entry.lease and unreported >= self._limits.max_deliveries:
                self._bury(entry)
            else:
                entry.worker, entry.reward_digest = worker, reward_digest
                taken.append(self._hand_out(entry, now=now))
        return taken

    def next_expiry(self) -> float | None:
        """No lease ends before this time; None if none is out."""
        return self._deadlines[0][0] if self._deadlines else None

    def renew(self, job: Job, worker: str, *, now: float) -> bool:
        entry = self._owned(job, worker)
        if entry is None:
            return False
        self._start_lease(entry, now=now)
        return True

    def commit(self, job: Job, scored: bytes, *, worker: str = "") -> CommitOutcome:
        if not self._is_awaited(job):
            self._stale_commits += 1
            return CommitOutcome.STALE
        if job.ordinal in self._results:
            self._duplicate_commits += 1
            return CommitOutcome.DUPLICATE
        self._settle(job.ordinal, Result(scored=scored, seal=job.seal, worker=worker))
        return CommitOutcome.ACCEPTED

    def fail(self, job: Job, worker: str, failure: Failure) -> FailOutcome:
        entry = self._owned(job, worker)
        if entry is None:
            return FailOutcome.STALE
        self._num_failures[failure.kind] += 1
        entry.failures.append(failure)
        if self._is_dead(entry.failures):
            self._bury(entry)
            return FailOutcome.DEAD
        self._end_lease(entry)
        return FailOutcome.RETRY

    def give_back(self, job: Job, worker: str) -> None:
        entry = self._owned(job, worker)
        if entry is not None:
            entry.deliveries -= 1
            self._end_lease(entry)

    # Operators.

    def stats(self, *, now: float) -> QueueStats:
        self._release_expired(now)
        oldest = next(iter(self._entries.values()), None)
        return QueueStats(
            term=-1 if self._term is None else self._term.number,
            frontier=self._frontier,
            backlog=self._num_free,
            leased=len(self._entries) - self._num_free,
            results=len(self._results),
            oldest_seconds=0.0 if oldest is None else now - oldest.put_at,
            redeliveries=self._redeliveries,
            duplicate_commits=self._duplicate_commits,
            stale_commits=self._stale_commits,
            dead=self._num_dead,
            failures={kind.value: count for kind, count in self._num_failures.items()},
            refused=dict(self._refused),
        )

    def dead_letters(self) -> list[DeadLetter]:
        return list(self._dead_letters)

    # Terms and the frontier.

    def _known(self, number: int) -> Term:
        known = self._term
        if known is None:
            raise QueueUnavailable(
                "the queue knows no term: the learner has yet to open it, or the queue was "
                "restarted and the learner will open it again"
            )
        self._refuse_older(number, known)
        if number > known.number:
            raise QueueUnavailable(
                f"the queue knows of term {known.number} only, not of {number}: the learner will "
                "open it again"
            )
        return known

    def _refuse_older(self, number: int, known: Term) -> None:
        if number < known.number:
            raise StaleTerm(f"term {number} is over: term {known.number} has taken over its queue")

    def _move_frontier(self, before: int) -> None:
        assert self._term is not None
        # There is nothing beyond the capacity.
        last = min(before, self._frontier + self._term.capacity)
        for ordinal in range(self._frontier, last):
            entry = self._settled.pop(ordinal, None) or self._entries.get(ordinal)
            if ordinal in self._entries:
                self._remove(self._entries[ordinal])
            self._results.pop(ordinal, None)
            if entry is not None:
                entry.body = b""  # the heaps may hold it for as long as a lease lasts
        self._frontier = max(self._frontier, before)

    # Leases.

    def _is_of_term(self, job: Job) -> bool:
        try:
            self._known(job.term)
        except StaleTerm:
            return False
        return True

    def _is_awaited(self, job: Job) -> bool:
        """Whether the learner still waits for a result of this ordinal, had it one or not."""
        if not self._is_of_term(job):
            return False
        assert self._term is not None
        return self._frontier <= job.ordinal < self._frontier + self._term.capacity

    def _owned(self, job: Job, worker: str) -> _Entry | None:
        """The entry, if this delivery of it is the last and this worker's."""
        if not self._is_of_term(job):
            return None
        entry = self._entries.get(job.ordinal)
        if entry is None or entry.lease != job.lease or entry.worker != worker:
            return None
        return entry

    def _next_free(self) -> _Entry | None:
        """Take out what came back, in the order of puts, then what was never handed out."""
        while self._returned:
            entry = heapq.heappop(self._returned)[1]
            entry.is_returned = False
            if entry.is_free and self._is_here(entry):
                return entry
        while self._fresh:
            entry = self._fresh.popleft()
            if self._is_here(entry):
                return entry
        return None

    def _hand_out(self, entry: _Entry, *, now: float) -> Job:
        assert self._term is not None
        self._num_leases += 1
        entry.lease = f"{self._instance}{self._num_leases}"
        entry.deliveries += 1
        self._redeliveries += entry.deliveries > 1
        self._start_lease(entry, now=now)
        return Job(
            term=self._term.number,
            ordinal=entry.ordinal,
            body=entry.body,
            delivery=entry.deliveries,
            lease=entry.lease,
            seal=entry.seal,
        )

    def _start_lease(self, entry: _Entry, *, now: float) -> None:
        self._num_free -= entry.is_free
        entry.is_free = False
        entry.expires_at = now + self._limits.lease_seconds
        if not entry.is_timed:
            entry.is_timed = True
            heapq.heappush(self._deadlines, (entry.expires_at, entry.place, entry))

    def _end_lease(self, entry: _Entry) -> None:
        entry.lease = ""
        self._free(entry)

    def _free(self, entry: _Entry) -> None:
        self._num_free += not entry.is_free
        entry.is_free = True
        if not entry.is_returned:
            entry.is_returned = True
            heapq.heappush(self._returned, (entry.place, entry))

    def _release_expired(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _, place, entry = heapq.heappop(self._deadlines)
            entry.is_timed = False
            if not self._is_here(entry) or entry.is_free:
                continue
            if entry.expires_at > now:  # renewed in the meantime
                entry.is_timed = True
                heapq.heappush(self._deadlines, (entry.expires_at, place, entry))
            else:
                self._free(entry)

    # What becomes of jobs.

    def _enqueue(self, entry: _Entry) -> None:
        self._num_puts += 1
        self._entries[entry.ordinal] = entry
        self._fresh.append(entry)
        self._num_free += 1

    def _is_here(self, entry: _Entry) -> bool:
        return self._entries.get(entry.ordinal) is entry

    def _is_dead(self, failures: Sequence[Failure]) -> bool:
        last = failures[-1]
        alike = sum(f.kind in _COUNTED_ALIKE and f.message == last.message for f in failures)
        return len(failures) >= self._limits.max_crashes or (
            last.kind in _COUNTED_ALIKE and alike >= self._limits.same_exception
        )

    def _bury(self, entry: _Entry) -> None:
        assert self._term is not None
        letter = DeadLetter(
            term=self._term.number,
            ordinal=entry.ordinal,
            body=entry.body,
            failures=tuple(entry.failures),
            worker=entry.worker,
            reward_digest=entry.reward_digest,
        )
        self._dead_letters.append(letter)
        self._num_dead += 1
        self._settle(entry.ordinal, Result(dead=entry.body, seal=entry.seal, worker=entry.worker))

    def _settle(self, ordinal: int, result: Result) -> None:
        entry = self._entries.get(ordinal)
        if entry is not None:
            self._settled[ordinal] = entry
            self._remove(entry)
        self._results[ordinal] = result
        self.num_rings += 1

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.ordinal]
        self._num_free -= entry.is_free
