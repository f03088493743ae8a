"""The jobs a worker holds: leased and waiting, being scored, and settled but not yet reported."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass

from reward_workers.metrics import ERRORS, GROUPS, SCORE_SECONDS, Metrics
from rewardtune.transport.queue.job_queue import FailOutcome, Failure, Job, JobQueue
from rewardtune.transport.term import StaleTerm

_LOG = logging.getLogger("rewardtune.reward_worker")
_STALE = "stale"


@dataclass(slots=True)
class _Held:
    job: Job
    leased_at: float
    renew_at: float
    """Infinity once the lease has passed to somebody else: its result may still be the first."""


@dataclass(frozen=True, slots=True)
class _Report:
    job: Job
    outcome: bytes | Failure | None
    """A scored group, why there is none, or nothing: it is given back."""


class Leases:
    """One worker's. Every method that talks to the queue may raise ``QueueUnavailable``.

    Nothing is lost by that: what was not reported is reported by the next ``flush``.
    """

    def __init__(
        self, queue: JobQueue, *, worker: str, lease_seconds: float, metrics: Metrics
    ) -> None:
        self._queue = queue
        self._worker = worker
        self._renew_seconds = lease_seconds / 3
        self._metrics = metrics
        self._waiting: deque[_Held] = deque()
        self._running: dict[str, _Held] = {}
        self._reports: deque[_Report] = deque()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_unreported(self) -> int:
        return len(self._reports)

    @property
    def next_renewal(self) -> float:
        """When the next lease is to be renewed, on the monotonic clock."""
        held = [*self._waiting, *self._running.values()]
        return min((each.renew_at for each in held), default=math.inf)

    @property
    def newest_term(self) -> int:
        """The highest that a waiting job names; -1 if none waits."""
        return max((held.job.term for held in self._waiting), default=-1)

    def lease(self, *, reward_digest: str, max_jobs: int, timeout_seconds: float) -> int:
        """Let up to ``max_jobs`` more wait here; how many came."""
        # The lease runs from some moment in between; renewal is reckoned from the earliest.
        asked_at = time.monotonic()
        jobs = self._queue.lease(
            self._worker,
            reward_digest=reward_digest,
            max_jobs=max_jobs,
            timeout_seconds=timeout_seconds,
        )
        leased_at = time.monotonic()
        renew_at = asked_at + self._renew_seconds
        self._waiting.extend(_Held(job, leased_at, renew_at) for job in jobs)
        return len(jobs)

    def begin(self) -> Job:
        """The job that has waited longest, now being scored."""
        held = self._waiting.popleft()
        self._running[held.job.lease] = held
        waited_seconds = time.monotonic() - held.leased_at
        self._metrics.observe(SCORE_SECONDS, waited_seconds, phase="wait")
        return held.job

    def settle(self, job: Job, outcome: bytes | Failure | None) -> None:
        """A job that was being scored is not any more; None gives it back."""
        del self._running[job.lease]
        if isinstance(outcome, Failure):
            self._metrics.count(ERRORS, kind=outcome.kind.value)
            _LOG.warning("group %d: %s: %s", job.ordinal, outcome.kind.value, outcome.message)
        self._reports.append(_Report(job, outcome))

    def give_back_waiting(self) -> None:
        self._reports.extend(_Report(held.job, None) for held in self._waiting)
        self._waiting.clear()

    def abandon_waiting(self, *, before_term: int) -> None:
        """Forget waiting jobs of older terms, as the queue has."""
        is_over = [held.job.term < before_term for held in self._waiting]
        self._metrics.count(GROUPS, sum(is_over), outcome=_STALE)
        kept = [held for held, over in zip(self._waiting, is_over, strict=True) if not over]
        self._waiting = deque(kept)

    def flush(self) -> None:
        """Tell the queue everything that it has not been told."""
        while self._reports:
            outcome = self._report(self._reports[0])
            self._reports.popleft()
            self._metrics.count(GROUPS, outcome=outcome)

    def renew_due(self) -> None:
        """Renew the leases whose third is over."""
        for held in [*self._waiting, *self._running.values()]:
            now = time.monotonic()
            if held.renew_at > now:
                continue
            try:
                is_ours = self._queue.renew(held.job, self._worker)
            except StaleTerm:
                is_ours = False
            held.renew_at = now + self._renew_seconds if is_ours else math.inf
        lost = [held for held in self._waiting if held.renew_at == math.inf]
        if lost:
            self._metrics.count(GROUPS, len(lost), outcome=_STALE)
            self._waiting = deque(held for held in self._waiting if held.renew_at < math.inf)

    def _report(self, report: _Report) -> str:
        try:
            match report.outcome:
                case None:
                    self._queue.give_back(report.job, self._worker)
                    return "given_back"
                case Failure() as failure:
                    told = self._queue.fail(report.job, self._worker, failure)
                    return _STALE if told is FailOutcome.STALE else "failed"
                case scored:
                    return self._queue.commit(report.job, self._worker, scored).value
        except StaleTerm:
            return _STALE
