"""The host of the learner: rank 0, which holds the term and does all that others see."""

from __future__ import annotations

import os
from dataclasses import dataclass

from learner.ranks import MeetingPoint, ShardExchange, TorchRanks
from learner.source import GroupSource, QueueSource, SharingSource
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.cluster.hosts.exposed import Exposed, expose
from rewardtune.cluster.hosts.learning import Learning
from rewardtune.cluster.hosts.replies import Claimed, Joined, Process, Stepped
from rewardtune.cluster.hosts.settings import HostSettings, unhurried
from rewardtune.run.assembly import Parts, assemble_service
from rewardtune.run.directory import RunDirectory, open_run
from rewardtune.run.tuning import TuningLoop
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import Term
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.weights.connect import connect_weights
from rewardtune.transport.weights.weight_store import WeightStore

_PATIENCE_SECONDS = 1.0
"""Of a learner that waits for its batch, before it looks up to hear whether to stop."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A term of the run, and all that is there before the ranks meet."""

    parts: Parts
    run: RunDirectory
    source: QueueSource
    store: WeightStore
    meeting: MeetingPoint | None
    """None where this rank is the only one."""
    exposed: Exposed

    @property
    def meeting_address(self) -> str:
        if self.meeting is None:
            return ""
        # Where the others reach this process, they reach its metrics.
        return f"{self.exposed.address.rpartition(':')[0]}:{self.meeting.port}"

    def meet(self) -> Learning:
        """Wait for the other ranks if there are any.

        Raises:
            RankLost: not all ranks came.
        """
        ranks: ShardExchange | None = None
        source: GroupSource = self.source
        if self.meeting is not None:
            ranks = TorchRanks(
                rank=0,
                num_ranks=self.parts.config.cluster.learners,
                address=self.meeting_address,
                device=self.parts.device,
                listener=self.meeting,
            )
            source = SharingSource(source, ranks)
        loop = TuningLoop(
            self.parts, term=self.run.term, store=self.store, source=source, ranks=ranks
        )
        return Learning(
            loop, parts=self.parts, run=self.run, source=self.source, meter=self.exposed.meter
        )


class LearnerHost:
    """The learner: collects, learns, publishes, writes checkpoints.

    ``begin``, then ``join``, then the others in any order. The constructor only reads its settings:
    what takes time or can fail comes after, so that its error reaches the driver as itself.
    """

    def __init__(self, settings: str) -> None:
        self._settings = HostSettings.model_validate_json(settings)
        self._claim: _Claim | None = None
        self._learning: Learning | None = None

    def begin(self) -> Claimed:
        """Claim a term, find what to start from.

        Raises:
            QueueUnavailable, WeightsUnavailable: not there yet; may be called again.
            ConfigError, CheckpointError, OSError: as ``open_run``.
        """
        messages: list[str] = []
        claim = self._claim = self._claimed(messages)
        found = claim.run.checkpoint
        return Claimed(
            process=Process(os.getpid(), claim.exposed.address),
            term=claim.run.term,
            messages=tuple(messages),
            checkpoint=None if found is None else found.path,
            meeting_address=claim.meeting_address,
        )

    def join(self) -> Joined:
        """Meet the other ranks if there are any, restore, publish what samplers need.

        Raises:
            QueueUnavailable, WeightsUnavailable: not there yet; may be called again.
            RankLost: not all ranks came.
        """
        assert self._claim is not None, "a learner begins before it joins"
        with unhurried():
            # Once: ranks meet once, however often it takes to publish.
            if self._learning is None:
                self._learning = self._claim.meet()
            return self._learning.open()

    def step(self) -> Stepped | None:
        """As ``Learning.step``."""
        return self._joined.step()

    def save(self) -> None:
        """Write a checkpoint unless this version has one."""
        self._joined.save()

    def finish(self) -> None:
        """Checkpoint and policy; nothing comes after."""
        self._joined.finish()

    @property
    def _joined(self) -> Learning:
        assert self._learning is not None, "a learner joins before it learns"
        return self._learning

    def _claimed(self, messages: list[str]) -> _Claim:
        parts = assemble_service(self._settings.config, begins_with_policy=True)
        config = parts.config
        # Before a term is claimed, which an attempt in vain would waste.
        with unhurried():
            queue = connect_queue(
                self._settings.queue_here,
                run=config.run_name,
                lease_seconds=config.cluster.lease_seconds,
                security=config.security,
            )
            store = connect_weights(self._settings.weights)
        run = open_run(config, messages.append, fork=self._settings.fork)
        seal, spec = self._settings.seal, self._settings.spec.encode()
        capacity = (config.depth + 1) * config.learner.batch_size
        term = Term(
            number=run.term,
            spec=spec,
            capacity=capacity,
            run_id=seal.run_id,
            seal=seal.of_term(run.term, capacity, spec),
        )
        source = QueueSource(
            queue,
            term,
            patience_seconds=_PATIENCE_SECONDS,
            seal=seal,
            promise=ScoringSpec.from_bytes(spec).promise,
        )
        return _Claim(
            parts=parts,
            run=run,
            source=source,
            store=store,
            meeting=MeetingPoint(config.cluster.bind) if config.cluster.learners > 1 else None,
            exposed=expose(self._settings.config, Role.LEARNER),
        )
