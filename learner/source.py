"""Where the learner's batches come from: in a cluster, from the job queue by key.

Of a learner of several ranks only the one that holds the term asks the queue, and shares what it
got. So all learn from the same bytes even if the queue is emptied meanwhile, no results have to be
kept until everybody has read them, and nobody else hears the bell in its place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from learner.ranks import ShardExchange
from rewardtune.records import Score, ScoredGroup
from rewardtune.transport.queue.job_queue import JobQueue, QueueUnavailable, Result, Term
from rewardtune.transport.wire import (
    group_from_bytes,
    scored_group_from_bytes,
    scored_group_to_bytes,
)

_BELL_SECONDS = 1.0
"""Longest wait for the bell: a lost one costs this much and no more."""
_RETRY_SECONDS = 0.2
_SIZE_BYTES = 4
"""Of the number that says how many bytes the group after it has."""


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


class SharingSource:
    """Rank 0's: what another source gives, given to the other ranks too."""

    def __init__(self, source: GroupSource, ranks: ShardExchange) -> None:
        self._source = source
        self._ranks = ranks

    def collect(self, ordinals: range) -> Collected | None:
        """Raises:
        RankLost: another rank is gone: restart all from the checkpoint.
        """
        collected = self._source.collect(ordinals)
        self._ranks.share(b"" if collected is None else batch_to_bytes(collected.scored))
        return collected

    def consumed(self, *, before: int) -> None:
        self._source.consumed(before=before)


class SharedSource:
    """The other ranks': what rank 0 shares, when it does."""

    def __init__(self, ranks: ShardExchange) -> None:
        self._ranks = ranks

    def collect(self, ordinals: range) -> Collected | None:
        """Raises:
        RankLost: another rank is gone: restart all from the checkpoint.
        """
        data = self._ranks.share(b"")
        return Collected(batch_from_bytes(data), {}) if data else None

    def consumed(self, *, before: int) -> None:
        """Rank 0 says so."""


def batch_to_bytes(scored: Sequence[ScoredGroup]) -> bytes:
    """Each group after its size."""
    bodies = [scored_group_to_bytes(each) for each in scored]
    return b"".join(len(body).to_bytes(_SIZE_BYTES, "little") + body for body in bodies)


def batch_from_bytes(data: bytes) -> list[ScoredGroup]:
    """Raises ValueError where these are not whole groups."""
    scored, start = [], 0
    while start < len(data):
        body = start + _SIZE_BYTES
        start = body + int.from_bytes(data[start:body], "little")
        if not body <= start <= len(data):
            raise ValueError(f"{len(data)} bytes are no whole batch: they end within a group")
        scored.append(scored_group_from_bytes(data[body:start]))
    return scored


def scored_group(result: Result) -> ScoredGroup:
    """A result as the learner sees it: what nobody could score is there and not valid."""
    if result.scored is not None:
        return scored_group_from_bytes(result.scored)
    if result.dead is None:
        raise ValueError("a result needs either a scored group or a dead one")
    group = group_from_bytes(result.dead)
    nothing_S = np.zeros(len(group.tokens_ST))
    return ScoredGroup(group=group, score=Score(reward_S=nothing_S, is_valid=False))
