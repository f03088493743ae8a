"""Where the learner's batches come from: in a cluster, from the job queue by key.

Of a learner of several ranks only the one that holds the term asks the queue, and shares what it
got. So all learn from the same bytes even if the queue is emptied meanwhile, no results have to be
kept until everybody has read them, and nobody else hears the bell in its place.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from learner.acceptance import BadResult, accepted
from learner.ranks import ShardExchange
from rewardtune.records import ScoredGroup
from rewardtune.records.score_promise import NOTHING_PROMISED, ScorePromise
from rewardtune.transport.queue.job_queue import (
    JobQueue,
    QueueDamaged,
    QueueRefused,
    QueueUnavailable,
    Result,
    Term,
)
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.wire import scored_group_from_bytes, scored_group_to_bytes

MAX_REFUSALS = 100
"""Results of one group, after which the run ends rather than ask for another."""
MAX_CLEARED = 100
"""Times that one learner clears the queue of what is not its run's."""

_BELL_SECONDS = 1.0
"""Longest wait for the bell: a lost one costs this much and no more."""
_RETRY_SECONDS = 0.2
_REFUSALS_TO_REDRAW = 3
"""Refused results of a group after which it is not only scored, but drawn again."""
_MAX_MESSAGES = 10
"""Between two steps; of what comes beyond only the number is told."""
_SIZE_BYTES = 4
"""Of the number that says how many bytes the group after it has."""

_LOG = logging.getLogger("rewardtune.learner")


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


class QueuePoisoned(RuntimeError):
    """Somebody writes into the queue faster than the run can set it right."""


class QueueSource:
    """Fetches missing ordinals by key when the bell rings, and every second.

    The queue may vanish and come back empty: then the term is opened again, and whoever places
    draws finds what is missing. It may also hold what somebody wrote there who is no part of the
    run: a result that cannot be one is refused, and a queue that says what no learner of this run
    has written is cleared. Neither ever reaches a batch.
    """

    def __init__(
        self,
        queue: JobQueue,
        term: Term,
        *,
        patience_seconds: float,
        seal: RunSeal | None = None,
        promise: ScorePromise = NOTHING_PROMISED,
    ) -> None:
        """
        Args:
            patience_seconds: of one ``collect``, after which the caller may look around.
            seal: the run's, which groups in the queue carry; None: they carry none.
            promise: what every score is like.
        """
        self._queue = queue
        self._term = term
        self._patience_seconds = patience_seconds
        self._seal = seal
        self._promise = promise
        self._frontier = 0
        self._found: dict[int, ScoredGroup] = {}
        self._waited_seconds = 0.0
        self._asserted_at = 0.0
        self._refusals: Counter[int] = Counter()
        """By ordinal that is not consumed."""
        self._num_cleared = 0
        self._messages: list[str] = []
        self._num_untold = 0

    def open(self, *, frontier: int) -> None:
        """Assert the term: at the start and after the queue was lost.

        Raises:
            StaleTerm: a newer learner has taken over.
            QueueRefused: the queue is another run's.
            QueueUnavailable: it cannot be reached.
            QueuePoisoned: it had to be cleared too often.
        """
        self._frontier = frontier
        self._asserted_at = time.monotonic()
        try:
            self._queue.open_term(self._term, frontier=frontier)
        except QueueDamaged as error:
            self._clear(str(error))
        except (StaleTerm, QueueRefused) as error:
            if not self._is_forged():
                raise
            self._clear(str(error))

    def collect(self, ordinals: range) -> Collected | None:
        """Raises:
        As ``open``, but for a queue that cannot be reached.
        """
        started = time.perf_counter()
        while missing := [ordinal for ordinal in ordinals if ordinal not in self._found]:
            found: dict[int, ScoredGroup] = {}
            try:
                found = self._taken(self._queue.results(self._term.number, missing))
                if len(found) < len(missing):
                    self._queue.wait(self._term.number, timeout_seconds=_BELL_SECONDS)
                    self._look_after()
            except (QueueUnavailable, StaleTerm):
                self._reopen()
            self._found |= found
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
        for ordinal in [ordinal for ordinal in self._refusals if ordinal < before]:
            del self._refusals[ordinal]
        while True:
            try:
                # Also where the queue has lost the term; where it has not, it only moves on.
                self.open(frontier=before)
                return
            except QueueUnavailable:
                time.sleep(_RETRY_SECONDS)

    def take_messages(self) -> tuple[str, ...]:
        """What an operator should hear of, since the last call."""
        told = list(self._messages)
        if self._num_untold:
            told.append(f"and {self._num_untold} more of the kind")
        self._messages, self._num_untold = [], 0
        return tuple(told)

    def _taken(self, results: Mapping[int, Result]) -> dict[int, ScoredGroup]:
        """Those that can be trained on; the others are refused."""
        taken: dict[int, ScoredGroup] = {}
        for ordinal, result in results.items():
            try:
                taken[ordinal] = accepted(
                    result,
                    term=self._term.number,
                    ordinal=ordinal,
                    seal=self._seal,
                    promise=self._promise,
                )
            except BadResult as error:
                self._refuse(ordinal, result, error)
        return taken

    def _refuse(self, ordinal: int, result: Result, error: BadResult) -> None:
        self._refusals[ordinal] += 1
        worker, times = result.worker or "(unnamed)", self._refusals[ordinal]
        self._tell(f"refused what worker {worker} reported of group {ordinal}: {error}")
        if times >= MAX_REFUSALS:
            raise QueuePoisoned(
                f"{times} results of group {ordinal} were refused, the last of worker {worker}: "
                f"{error}: see who has the queue's password, and whether workers are of the run's "
                "version, then start the run again"
            )
        # What is queued may be foreign itself: whoever scores it could not do right.
        is_sound = result.scored is not None and times % _REFUSALS_TO_REDRAW != 0
        self._queue.refuse(self._term.number, ordinal, worker=worker, keep_group=is_sound)

    def _look_after(self) -> None:
        """While nothing comes: see that the queue still says what this learner told it."""
        if time.monotonic() - self._asserted_at < _BELL_SECONDS:
            return
        self.open(frontier=self._frontier)
        if self._queue.stats().frontier > self._frontier:
            self._clear("its frontier is beyond the learner's")

    def _is_forged(self) -> bool:
        """Whether the queue's term was written by nobody who has the run's secret."""
        if self._seal is None:
            return False
        try:
            found = self._queue.term()
        except QueueDamaged:
            return True
        return (
            found is not None
            and found.run_id in ("", self._term.run_id)
            and not self._seal.is_of_term(found.seal, found.number, found.capacity, found.spec)
        )

    def _clear(self, why: str) -> None:
        self._num_cleared += 1
        if self._num_cleared > MAX_CLEARED:
            raise QueuePoisoned(
                f"the queue had to be cleared {MAX_CLEARED} times, and again: {why}: see who has "
                "its password, then start the run again"
            )
        self._tell(f"cleared the queue, and its groups are drawn again: {why}")
        self._queue.open_term(self._term, frontier=self._frontier, afresh=True)

    def _tell(self, message: str) -> None:
        if len(self._messages) < _MAX_MESSAGES:
            _LOG.warning(message)
            self._messages.append(message)
        else:
            self._num_untold += 1

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
