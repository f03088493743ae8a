"""Scorers side by side: who is free, what became of a group, and who must be replaced."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Sequence
from dataclasses import dataclass

from reward_workers.child import ChildDied, ChildState, ScorerChild
from reward_workers.metrics import RESTARTS, SCORERS, Metrics
from reward_workers.scorer_wire import Failed, Reply, Scored, Start, Started, Unfit
from rewardtune.transport.queue.job_queue import Failure, FailureKind, Job
from rewardtune.transport.wire import group_from_bytes

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Fit:
    """A scorer proved itself."""

    started: Started


@dataclass(frozen=True, slots=True)
class Refused:
    """A scorer must not score for this run, and neither would any other of this worker."""

    started: Started


@dataclass(frozen=True, slots=True)
class Done:
    """A group came to a score, or to a failure that is its own; how long it took."""

    job: Job
    outcome: Scored | Failure
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Untouched:
    """A group that its scorer could do nothing about."""

    job: Job
    message: str


Event = Fit | Refused | Done | Untouched


@dataclass(slots=True)
class _Place:
    """One of the pool's places: the scorer in it, or when the next one is to be started."""

    child: ScorerChild | None = None
    start_at: float = 0.0
    pause_seconds: float = FIRST_PAUSE_SECONDS
    """Until the next start, should this one fail."""
    job: Job | None = None
    asked_at: float = 0.0


class ScorerPool:
    """``num_scorers`` children of one spec. One thread makes all calls."""

    def __init__(
        self,
        *,
        num_scorers: int,
        threads: int,
        startup_seconds: float,
        max_groups_per_scorer: int | None,
        metrics: Metrics,
    ) -> None:
        """Nothing runs before ``begin``."""
        self._start: Start | None = None
        self._threads = threads
        self._startup_seconds = startup_seconds
        self._max_groups = max_groups_per_scorer
        self._metrics = metrics
        self._selector = selectors.DefaultSelector()
        self._places = [_Place() for _ in range(num_scorers)]
        self.trouble = ""
        """Why scorers do not start; empty once one did."""

    @property
    def num_ready(self) -> int:
        return self._count(ChildState.READY)

    @property
    def num_busy(self) -> int:
        return self._count(ChildState.BUSY)

    @property
    def pids(self) -> list[int]:
        return [place.child.pid for place in self._places if place.child is not None]

    def watch(self, fileno: int) -> None:
        """Let ``poll`` return when there is something to read here; its owner reads it."""
        self._selector.register(fileno, selectors.EVENT_READ, None)

    def submit(self, job: Job) -> None:
        """Hand a group to a free scorer; there must be one."""
        now = time.monotonic()
        place = next(place for place in self._places if _state(place) is ChildState.READY)
        assert place.child is not None
        place.job, place.asked_at = job, now
        place.child.ask(job.body, now=now)
        self._watch(place)
        self._report()

    def poll(self, timeout_seconds: float) -> list[Event]:
        """What happened since; waits until something did, or for so long.

        Scorers that are due are started, those that are late or spent are replaced.
        """
        self._start_due()
        now = time.monotonic()
        due = min(
            place.child.due if place.child else self._start_at(place) for place in self._places
        )
        events: list[Event] = []
        for key, mask in self._selector.select(max(0.0, min(timeout_seconds, due - now))):
            place = key.data
            if place is None:
                continue
            if mask & selectors.EVENT_WRITE:
                place.child.flush()
                self._watch(place)
            if mask & selectors.EVENT_READ:
                events += self._read(place)
        # After reading: an answer that is there counts, however late we look.
        for place in self._places:
            if place.child is not None and place.child.due <= time.monotonic():
                events += self._late(place)
        self._report()
        return events

    def begin(self, start: Start) -> None:
        """Start scorers, at the next ``poll``; there must be none."""
        assert not self.pids, "clear the pool before other scorers begin"
        self._start = start

    def clear(self) -> list[Job]:
        """Kill every scorer and start no more; the groups that were being scored."""
        jobs = [place.job for place in self._places if place.job is not None]
        self._start, self.trouble = None, ""
        for place in self._places:
            self._empty(place)
            place.pause_seconds = FIRST_PAUSE_SECONDS
        self._report()
        return jobs

    def close(self) -> None:
        self.clear()
        self._selector.close()

    def _read(self, place: _Place) -> Sequence[Event]:
        assert place.child is not None
        was_starting = place.child.state is ChildState.STARTING
        try:
            reply = place.child.receive()
        except ChildDied as death:
            if was_starting:
                self._start_failed(place, f"{death} while starting")
                return []
            return self._crashed(place, str(death))
        return [] if reply is None else self._answered(place, reply)

    def _answered(self, place: _Place, reply: Reply) -> Sequence[Event]:
        job = place.job
        match reply:
            case Started(refusal=""):
                place.pause_seconds, self.trouble = FIRST_PAUSE_SECONDS, ""
                return [Fit(reply)]
            case Started():
                self._empty(place)
                place.start_at = math.inf
                return [Refused(reply)]
            case Unfit(message) if job is not None:
                self._replace(place, "unfit")
                return [Untouched(job, message)]
            case Scored() if job is not None:
                return [self._done(place, job, reply)]
            case Failed() if job is not None:
                kind = FailureKind.INVALID if reply.is_invalid else FailureKind.EXCEPTION
                return [self._done(place, job, Failure(kind, reply.message, reply.traceback))]
            case _:
                return self._crashed(place, f"scorer sent {type(reply).__name__} out of turn")

    def _done(self, place: _Place, job: Job, outcome: Scored | Failure) -> Done:
        assert place.child is not None
        place.job = None
        if self._max_groups is not None and place.child.num_groups >= self._max_groups:
            self._replace(place, "recycled")
        return Done(job, outcome, time.monotonic() - place.asked_at)

    def _crashed(self, place: _Place, message: str) -> Sequence[Event]:
        return self._lost(place, FailureKind.CRASH, message)

    def _late(self, place: _Place) -> Sequence[Event]:
        assert place.child is not None
        if place.child.state is ChildState.STARTING:
            self._start_failed(
                place, f"scorer was not ready after {self._startup_seconds:g} s: killed"
            )
            return []
        assert self._start is not None
        message = f"no score after {self._start.deadline_seconds:g} s: scorer killed"
        return self._lost(place, FailureKind.TIMEOUT, message)

    def _lost(self, place: _Place, kind: FailureKind, message: str) -> Sequence[Event]:
        assert place.child is not None
        job, note = place.job, place.child.note()
        self._replace(place, kind.value)
        if job is None:  # it died while it was idle
            return []
        failure = Failure(kind, f"{_example_of(job)}: {message}", note)
        return [Done(job, failure, time.monotonic() - place.asked_at)]

    def _start_failed(self, place: _Place, message: str) -> None:
        self.trouble = message
        self._replace(place, "startup")
        place.start_at = time.monotonic() + place.pause_seconds
        place.pause_seconds = min(2 * place.pause_seconds, MAX_PAUSE_SECONDS)

    def _replace(self, place: _Place, reason: str) -> None:
        self._metrics.count(RESTARTS, reason=reason)
        self._empty(place)

    def _empty(self, place: _Place) -> None:
        if place.child is not None:
            self._selector.unregister(place.child.channel)
            place.child.close()
        place.child, place.job, place.start_at = None, None, 0.0

    def _start_at(self, place: _Place) -> float:
        return math.inf if self._start is None else place.start_at

    def _start_due(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if self._start is None or place.child is not None or place.start_at > now:
                continue
            try:
                child = ScorerChild(
                    self._start,
                    threads=self._threads,
                    startup_seconds=self._startup_seconds,
                    started_at=now,
                )
            except OSError as error:
                self._start_failed(place, f"scorer cannot be started: {error}")
                continue
            place.child = child
            self._selector.register(child.channel, selectors.EVENT_READ, place)
            self._watch(place)

    def _watch(self, place: _Place) -> None:
        assert place.child is not None
        writing = selectors.EVENT_WRITE if place.child.is_sending else 0
        self._selector.modify(place.child.channel, selectors.EVENT_READ | writing, place)

    def _count(self, state: ChildState) -> int:
        return sum(_state(place) is state for place in self._places)

    def _report(self) -> None:
        for state in ChildState:
            self._metrics.set(SCORERS, self._count(state), state=state.value)


def _example_of(job: Job) -> str:
    try:
        return f"example {group_from_bytes(job.body).example}"
    except ValueError:
        return "a group that cannot be read"


def _state(place: _Place) -> ChildState | None:
    return None if place.child is None else place.child.state
