"""A sampler in a cluster: draws what it is told to, with the weights it is told to use."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rewardtune.records import Group, Published
from rewardtune.transport.queue.job_queue import JobQueue
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.telemetry.meter import Meter, NoTelemetry
from rewardtune.transport.weights.weight_store import WeightStore
from rewardtune.transport.wire import group_to_bytes
from sampler.metrics import DrawReport, report_draw
from sampler.sampler import Sampler


class SamplerService:
    """Draws micro-batches into the job queue.

    Decides nothing: which ordinals and which weights comes with each call, and a group is
    stamped with the weights that are loaded.
    """

    def __init__(
        self,
        sampler: Sampler,
        *,
        queue: JobQueue,
        store: WeightStore,
        seal: RunSeal,
        meter: Meter | None = None,
    ) -> None:
        """
        Args:
            seal: the run's, by which its learner knows these groups again.
        """
        self._sampler = sampler
        self._queue = queue
        self._store = store
        self._seal = seal
        self._meter = meter or NoTelemetry()
        self._idle_since = time.perf_counter()

    def draw(self, published: Published, ordinals: Sequence[int]) -> DrawReport:
        """Draw one micro-batch and admit it.

        Raises:
            WeightsNotFound: nobody published these weights, or not any more.
            DamagedWeights: they do not act here as they did in the learner.
            StaleTerm: the term is over.
            QueueUnavailable: some groups may be admitted: drawing the micro-batch again is right.
        """
        started = time.perf_counter()
        must_load = self._sampler.loaded != published
        if must_load:
            self._load(published)
        loaded = time.perf_counter()
        drawn = self._sampler.sample(ordinals)
        sampled = time.perf_counter()
        admitted = [self._put(published.term, group) for group in drawn.groups]
        idle_since, self._idle_since = self._idle_since, time.perf_counter()
        report = DrawReport(
            num_groups=len(drawn.groups),
            num_admitted=sum(admitted),
            blocked_seconds=started - idle_since,
            load_seconds=loaded - started if must_load else 0.0,
            images_seconds=drawn.images_seconds,
            encode_seconds=drawn.encode_seconds,
            decode_seconds=sampled - loaded - drawn.images_seconds - drawn.encode_seconds,
            put_seconds=self._idle_since - sampled,
        )
        report_draw(self._meter, report, published)
        return report

    def _put(self, term: int, group: Group) -> bool:
        body = group_to_bytes(group)
        seal = self._seal.of_group(term, group.ordinal, body)
        return self._queue.put(term, group.ordinal, body, seal=seal)

    def _load(self, published: Published) -> None:
        self._sampler.load(self._store.fetch_unchecked(published), published)
        manifest = self._store.manifest(published)
        if manifest.canary is not None:
            self._meter.set("canary_error", self._sampler.check_canary(manifest))
