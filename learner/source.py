"""Where the learner's batches come from: in a cluster, from the job queue by key."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from records import Score, ScoredGroup
from transport.job_queue import JobQueue, QueueUnavailable, Result, Term
from transport.wire import group_from_bytes, scored_group_from_bytes

_BELL_SECONDS = 1.0
"""Longest wait for the bell: a lost one costs this much and no more."""
_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Collected:
    """A batch of scored groups in the order of their ordinals."""

    scored: Sequence[ScoredGroup]
    seconds: Mapping[str, float]
    """Where the time went, by the name it has in the log: ``seconds_sample`` ..."""


class GroupSource(Protocol):
    """Hands the learner its batches, each complete and in order."""

    def collect(self, ordinals: range) -> Collected | None:
        """The batch, complete; None: not yet, ask again."""
        ...

    def consumed(self, *, before: int) -> None:
        """Ordinals below are in the weights and need not be kept."""
        ...


class QueueSource:
    """Fetches missing ordinals by key when the bell rings, and every second.

    The queue may vanish and come back empty: then the term is opened again, and whoever places
    draws finds what is missing.
    """

    def __init__(self, queue: JobQueue, term: Term, *, patience_seconds: float) -> None:
        """Open the term.

        Args:
            patience_seconds: of one ``collect``, after which the caller may look around.

        Raises:
            StaleTerm: a newer learner has taken over.
            QueueUnavailable: the queue cannot be reached.
        """
        self._queue = queue
        self._term = term
        self._patience_seconds = patience_seconds
        self._frontier = 0
        self._found: dict[int, ScoredGroup] = {}
        self._waited_seconds = 0.0

    def open(self, *, frontier: int) -> None:
        """Assert the term: at the start and after the queue was lost."""
        self._frontier = frontier
        self._queue.open_term(self._term, frontier=frontier)

    def collect(self, ordinals: range) -> Collected | None:
        started = time.perf_counter()
        while missing := [ordinal for ordinal in ordinals if ordinal not in self._found]:
            try:
                found = self._queue.results(self._term.number, missing)
                if len(found) < len(missing):
                    self._queue.wait(self._term.number, timeout_seconds=_BELL_SECONDS)
            except QueueUnavailable:
                found = {}
                self._reopen()
            self._found |= {ordinal: scored_group(result) for ordinal, result in found.items()}
            waited = time.perf_counter() - started
            if len(found) < len(missing) and waited > self._patience_seconds:
                self._waited_seconds += waited
                return None
        waited, self._waited_seconds = self._waited_seconds + time.perf_counter() - started, 0.0
        return Collected(
            [self._found.pop(ordinal) for ordinal in ordinals], {"seconds_wait": waited}
        )

    def consumed(self, *, before: int) -> None:
        """Move the frontier; not to return before it has moved.

        Whoever hears of the next version draws beyond the old frontier.
        """
        while True:
            try:
                # Also where the queue has lost the term; where it has not, it only moves on.
                self.open(frontier=before)
                return
            except QueueUnavailable:
                time.sleep(_RETRY_SECONDS)

    def _reopen(self) -> None:
        time.sleep(_RETRY_SECONDS)
        try:
            self.open(frontier=self._frontier)
        except QueueUnavailable:
            return  # still away: the caller asks again


def scored_group(result: Result) -> ScoredGroup:
    """A result as the learner sees it: what nobody could score is there and not valid."""
    if result.scored is not None:
        return scored_group_from_bytes(result.scored)
    if result.dead is None:
        raise ValueError("a result needs either a scored group or a dead one")
    group = group_from_bytes(result.dead)
    nothing_S = np.zeros(len(group.tokens_ST))
    return ScoredGroup(group=group, score=Score(reward_S=nothing_S, is_valid=False))
