"""A ``QueueState`` under watch: every answer is held against the plainest possible account.

The account is dictionaries and no cleverness, written from the contract and not from the code, so
that a rule that is broken in one of the two is seen at the first answer that differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    FailOutcome,
    Failure,
    FailureKind,
    Job,
    QueueFull,
    QueueLimits,
    QueueUnavailable,
    Result,
    Term,
)
from rewardtune.transport.queue.queue_state import QueueState
from rewardtune.transport.term import StaleTerm


class Violation(AssertionError):
    """A promise was broken."""


def demand(is_kept: bool, broken: str) -> None:
    if not is_kept:
        raise Violation(broken)


@dataclass(slots=True)
class _Account:
    """What is known of one ordinal that is not consumed."""

    body: bytes | None = None
    """None: it was committed without ever being put here."""
    seal: bytes = b""
    result: Result | None = None
    holder: tuple[str, str] | None = None
    """Lease and worker of the delivery that is out, running or expired."""
    until: float = 0.0
    deliveries: int = 0
    failures: list[Failure] = field(default_factory=list)


class WatchedQueue:
    """The queue of a simulation: calls as of ``JobQueue``, at a given time, each checked."""

    def __init__(self, limits: QueueLimits, rules: type[QueueState]) -> None:
        self._limits = limits
        self._rules = rules
        self.num_wipes = -1
        self.num_redeliveries = 0
        self.num_duplicates = 0
        self.num_stale = 0
        self.num_refused = 0
        self.wipe()

    def wipe(self) -> None:
        """It dies, and one that knows nothing takes its place."""
        self.num_wipes += 1
        self._state = self._rules(self._limits, instance=f"{self.num_wipes}-")
        self._term: Term | None = None
        self._frontier = 0
        self._accounts: dict[int, _Account] = {}

    def open_term(self, term: Term, *, frontier: int, now: float) -> None:
        self._state.open_term(term, frontier=frontier)
        known = self._term
        demand(
            known is None or term.number >= known.number,
            f"term {term.number} was opened over a higher one",
        )
        if known is None or term.number > known.number:
            self._accounts.clear()
            self._term, self._frontier = term, frontier
        else:
            self._move_frontier(frontier)

    def put(self, term: int, ordinal: int, body: bytes, *, now: float, seal: bytes = b"") -> None:
        try:
            is_new = self._state.put(term, ordinal, body, now=now, seal=seal)
        except QueueFull as error:
            raise Violation(f"the queue is full: {error}") from error
        known = self._open(term)
        wanted = ordinal >= self._frontier and ordinal not in self._accounts
        demand(is_new == wanted, f"put of {ordinal} answered {is_new}")
        if is_new:
            self._accounts[ordinal] = _Account(body, seal)
            num = len(self._accounts)
            demand(num <= known.capacity, f"{num} ordinals are unconsumed")

    def missing(self, term: int, ordinals: Sequence[int], *, now: float) -> list[int]:
        found = self._state.missing(term, ordinals)
        self._open(term)
        wanted = [o for o in ordinals if o >= self._frontier and o not in self._accounts]
        demand(found == wanted, f"{wanted} are missing, and {found} were named")
        return found

    def results(self, term: int, ordinals: Sequence[int], *, now: float) -> dict[int, Result]:
        found = self._state.results(term, ordinals)
        self._open(term)
        known = {o: self._accounts[o].result for o in ordinals if o in self._accounts}
        wanted = {o: result for o, result in known.items() if result is not None}
        demand(found == wanted, f"results are {wanted}, and {found} were handed out")
        return found

    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool, now: float) -> None:
        self._state.refuse(term, ordinal, worker=worker, keep_group=keep_group, now=now)
        self._open(term)
        account = self._accounts.get(ordinal)
        if account is None or account.result is None:
            return
        self.num_refused += 1
        account.result = None
        if account.body is None or not keep_group:
            del self._accounts[ordinal]
        else:
            account.deliveries = len(account.failures)

    def consume(self, term: int, *, before: int, now: float) -> None:
        self._state.consume(term, before=before)
        self._open(term)
        self._move_frontier(before)

    def lease(self, worker: str, *, max_jobs: int, now: float) -> list[Job]:
        rings = self._state.num_rings
        jobs = self._state.lease(worker, reward_digest="", max_jobs=max_jobs, now=now)
        if self._state.num_rings != rings:
            self._find_given_up(now)
        demand(len(jobs) <= max_jobs, f"{len(jobs)} jobs were leased, {max_jobs} wanted")
        for job in jobs:
            known = self._open(job.term)
            account = self._accounts.get(job.ordinal)
            if account is None or account.body is None:
                raise Violation(f"{job.ordinal} was leased, which is not here")
            demand(account.result is None, f"{job.ordinal} was leased, which has its result")
            demand(
                account.holder is None or account.until <= now,
                f"{job.ordinal} was leased while another's lease ran",
            )
            is_own = (job.body, job.seal) == (account.body, account.seal)
            demand(is_own, f"{job.ordinal} was leased with another body or seal")
            account.deliveries += 1
            demand(job.delivery == account.deliveries, f"{job.ordinal}: {job.delivery} deliveries")
            demand(known.number == job.term, "a job of another term was leased")
            self.num_redeliveries += job.delivery > 1
            account.holder = (job.lease, worker)
            account.until = now + self._limits.lease_seconds
        return jobs

    def renew(self, job: Job, worker: str, *, now: float) -> bool:
        is_renewed = self._state.renew(job, worker, now=now)
        account = self._held(job, worker)
        demand(
            is_renewed == (account is not None),
            f"renewal of {job.ordinal} by {worker} answered {is_renewed}",
        )
        if account is not None:
            account.until = now + self._limits.lease_seconds
        return is_renewed

    def commit(self, job: Job, worker: str, scored: bytes, *, now: float) -> CommitOutcome:
        outcome = self._state.commit(job, scored, worker=worker)
        if not self._is_of_term(job) or not self._is_admitted(job.ordinal):
            wanted = CommitOutcome.STALE
            self.num_stale += 1
        else:
            account = self._accounts.setdefault(job.ordinal, _Account())
            if account.result is None:
                wanted = CommitOutcome.ACCEPTED
                account.result, account.holder = Result(scored=scored, seal=job.seal), None
            else:
                wanted = CommitOutcome.DUPLICATE
                self.num_duplicates += 1
        demand(outcome is wanted, f"commit of {job.ordinal} is {wanted}, answered {outcome}")
        return outcome

    def fail(self, job: Job, worker: str, failure: Failure, *, now: float) -> FailOutcome:
        outcome = self._state.fail(job, worker, failure)
        account = self._held(job, worker)
        wanted = FailOutcome.STALE
        if account is not None:
            account.failures.append(failure)
            account.holder = None
            wanted = FailOutcome.DEAD if self._must_die(account.failures) else FailOutcome.RETRY
            if wanted is FailOutcome.DEAD:
                account.result = Result(dead=account.body, seal=account.seal)
        demand(outcome is wanted, f"failure of {job.ordinal} is {wanted}, answered {outcome}")
        return outcome

    def give_back(self, job: Job, worker: str, *, now: float) -> None:
        self._state.give_back(job, worker)
        account = self._held(job, worker)
        if account is not None:
            account.holder = None
            account.deliveries -= 1

    def check_empty(self, *, now: float) -> None:
        """Nothing is left of a run that is over."""
        stats = self._state.stats(now=now)
        left = (stats.backlog, stats.leased, stats.results)
        demand(left == (0, 0, 0), f"backlog, leased and results at the end: {left}")

    def _find_given_up(self, now: float) -> None:
        """Give up what the queue gave up, if it was right to."""
        assert self._term is not None
        unsettled = [o for o, account in self._accounts.items() if account.result is None]
        for ordinal, result in self._state.results(self._term.number, unsettled).items():
            account = self._accounts[ordinal]
            unreported = account.deliveries - len(account.failures)
            demand(
                result == Result(dead=account.body, seal=account.seal)
                and account.until <= now
                and unreported >= self._limits.max_deliveries,
                f"{ordinal} was given up after {unreported} deliveries",
            )
            account.result, account.holder = result, None

    def _must_die(self, failures: Sequence[Failure]) -> bool:
        messages = Counter(
            f.message for f in failures if f.kind in (FailureKind.EXCEPTION, FailureKind.INVALID)
        )
        limits = self._limits
        return len(failures) >= limits.max_crashes or any(
            count >= limits.same_exception for count in messages.values()
        )

    def _open(self, number: int) -> Term:
        """The term, which the queue has just served: it must be the one that is open."""
        if self._term is None or number != self._term.number:
            raise Violation(f"a call of term {number} was served in term {self._term}")
        return self._term

    def _is_of_term(self, job: Job) -> bool:
        """Of a job that the queue has just answered for."""
        demand(self._term is not None, "a queue that knows no term answered")
        assert self._term is not None
        demand(job.term <= self._term.number, "a queue answered for a term to come")
        return job.term == self._term.number

    def _is_admitted(self, ordinal: int) -> bool:
        assert self._term is not None
        return self._frontier <= ordinal < self._frontier + self._term.capacity

    def _held(self, job: Job, worker: str) -> _Account | None:
        if not self._is_of_term(job):
            return None
        account = self._accounts.get(job.ordinal)
        if account is None or account.result is not None:
            return None
        return account if account.holder == (job.lease, worker) else None

    def _move_frontier(self, before: int) -> None:
        self._frontier = max(self._frontier, before)
        for ordinal in [o for o in self._accounts if o < self._frontier]:
            del self._accounts[ordinal]


REFUSALS = (QueueUnavailable, StaleTerm)
"""What a queue may answer instead."""
