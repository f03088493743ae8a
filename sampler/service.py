"""A sampler in a cluster: draws what it is told to, with the weights it is told to use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from records import Published
from sampler.sampler import Sampler
from transport.job_queue import JobQueue
from transport.weight_store import WeightStore
from transport.wire import group_to_bytes


@dataclass(frozen=True, slots=True)
class DrawReport:
    """What one micro-batch took."""

    num_groups: int
    num_admitted: int
    """Groups that the queue did not have yet."""
    load_seconds: float
    """Fetching weights and swapping them in; 0 if they were there."""
    draw_seconds: float
    put_seconds: float


class SamplerService:
    """Draws micro-batches into the job queue.

    Decides nothing: which ordinals and which weights comes with each call, and a group is
    stamped with the weights that are loaded.
    """

    def __init__(self, sampler: Sampler, *, queue: JobQueue, store: WeightStore) -> None:
        self._sampler = sampler
        self._queue = queue
        self._store = store

    def draw(self, published: Published, ordinals: Sequence[int]) -> DrawReport:
        """Draw one micro-batch and admit it.

        Raises:
            WeightsNotFound: nobody published these weights, or not any more.
            StaleTerm: the term is over.
            QueueUnavailable: some groups may be admitted: drawing the micro-batch again is right.
        """
        started = time.perf_counter()
        if self._sampler.loaded != published:
            self._sampler.load(self._store.fetch(published), published)
        loaded = time.perf_counter()
        groups = self._sampler.sample(ordinals)
        drawn = time.perf_counter()
        admitted = [
            self._queue.put(published.term, group.ordinal, group_to_bytes(group))
            for group in groups
        ]
        return DrawReport(
            num_groups=len(groups),
            num_admitted=sum(admitted),
            load_seconds=loaded - started,
            draw_seconds=drawn - loaded,
            put_seconds=time.perf_counter() - drawn,
        )
