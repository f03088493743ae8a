"""Which groups must be drawn now, and with which weights: a function of what is known, no more.

The unit is a micro-batch of consecutive ordinals, since the shape of a batch moves bits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, order=True)
class Draw:
    """One micro-batch to be drawn."""

    first_ordinal: int
    num_groups: int
    policy_version: int

    @property
    def ordinals(self) -> range:
        return range(self.first_ordinal, self.first_ordinal + self.num_groups)


class DrawState(StrEnum):
    NOT_DUE = "not_due"
    """Its weights are not published yet."""
    WANTED = "wanted"
    IN_FLIGHT = "in_flight"
    DRAWN = "drawn"


class DrawTable:
    """The draws of one term of the learner: wanted, in flight, done.

    ``published`` tells it how far the learner has come; what may be drawn follows from that
    alone. A micro-batch of which groups are missing in two scans running, and that nobody is
    drawing, is wanted again, whole and at its pinned version.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        micro_batch: int,
        num_batches: int,
        drawn_with: Callable[[int], int],
        depth: int,
    ) -> None:
        """
        Args:
            drawn_with: policy version of a batch.
            depth: batches that may exist beyond the one the learner waits for.
        """
        self._batch_size = batch_size
        self._micro_batch = micro_batch
        self._num_batches = num_batches
        self._drawn_with = drawn_with
        self._depth = depth
        self._num_redraws = 0
        self._begin(0)

    def _begin(self, version: int) -> None:
        self._version = version
        self._next_batch = version
        self._wanted: list[Draw] = []
        self._in_flight: set[Draw] = set()
        self._done: set[Draw] = set()
        self._suspects: set[Draw] = set()

    @property
    def num_redraws(self) -> int:
        """Micro-batches wanted a second time, in all terms."""
        return self._num_redraws

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    def begin(self, *, version: int) -> None:
        """A new term: the learner stands at this version, and nothing of before counts."""
        self._begin(version)
        self.published(version)

    def published(self, version: int) -> None:
        """The learner has consumed so many batches and published what came of them."""
        self._version = version
        frontier = version * self._batch_size
        self._done = {draw for draw in self._done if draw.first_ordinal >= frontier}
        self._suspects = {draw for draw in self._suspects if draw.first_ordinal >= frontier}
        self._wanted = [draw for draw in self._wanted if draw.first_ordinal >= frontier]
        heapq.heapify(self._wanted)
        last = min(version + self._depth, self._num_batches - 1)
        while self._next_batch <= last:
            start = self._next_batch * self._batch_size
            for first in range(start, start + self._batch_size, self._micro_batch):
                draw = Draw(first, self._micro_batch, self._drawn_with(self._next_batch))
                heapq.heappush(self._wanted, draw)
            self._next_batch += 1

    def next(self) -> Draw | None:
        """The lowest micro-batch that nobody draws yet, which is in flight from now on."""
        if not self._wanted:
            return None
        draw = heapq.heappop(self._wanted)
        self._in_flight.add(draw)
        return draw

    def done(self, draw: Draw) -> None:
        """It was drawn and admitted. One of an earlier term, or consumed by now: nothing."""
        if draw in self._in_flight:
            self._in_flight.remove(draw)
            if draw.first_ordinal >= self._version * self._batch_size:
                self._done.add(draw)

    def lost(self, draw: Draw) -> None:
        """Whoever drew it is gone: it is wanted again."""
        if draw in self._in_flight:
            self._in_flight.remove(draw)
            self._want_again(draw)

    def settled_ordinals(self) -> list[int]:
        """What the queue must know of, queued, leased or scored: everything drawn, not consumed."""
        return [ordinal for draw in sorted(self._done) for ordinal in draw.ordinals]

    def state_of(self, ordinal: int) -> DrawState:
        """Of one not consumed; may be asked from any thread."""
        first = ordinal - ordinal % self._micro_batch
        version = self._drawn_with(ordinal // self._batch_size)
        draw = Draw(first, self._micro_batch, version)
        # In the order in which draws move, so that one that moves meanwhile is met all the same.
        if draw in self._wanted:
            return DrawState.WANTED
        if draw in self._in_flight:
            return DrawState.IN_FLIGHT
        return DrawState.DRAWN if draw in self._done else DrawState.NOT_DUE

    def reconcile(self, missing: Iterable[int]) -> list[Draw]:
        """Take in a scan of the queue; returns what is wanted again because of it."""
        missing_now = set(missing)
        incomplete = {d for d in self._done if not missing_now.isdisjoint(d.ordinals)}
        again = sorted(incomplete & self._suspects)
        self._suspects = incomplete - set(again)
        for draw in again:
            self._done.remove(draw)
            self._want_again(draw)
        return again

    def _want_again(self, draw: Draw) -> None:
        if draw.first_ordinal >= self._version * self._batch_size:
            self._num_redraws += 1
            heapq.heappush(self._wanted, draw)
