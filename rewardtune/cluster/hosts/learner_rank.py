"""The hosts of a learner's other ranks: each computes its shards of every step, and nothing else.

Rank 0 (``learner.LearnerHost``) holds the term, reads the queue, publishes and writes. These
start from the same weights, are shared the same batches, exchange gradients and apply the same
update; so they hold the learner's weights without ever being sent them.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from learner.checkpoint import Checkpoint, CheckpointError, CheckpointIncomplete, load_checkpoint
from learner.learner import Learner
from learner.not_finite import NotFinite
from learner.ranks import TorchRanks
from learner.source import SharedSource
from rewardtune.cluster.hosts.exposed import expose
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.replies import Joined, Process
from rewardtune.cluster.hosts.settings import HostSettings
from rewardtune.run.assembly import Parts, assemble_service
from rewardtune.run.state import restore_learner
from rewardtune.run.tuning import own_images, tuning_learner
from rewardtune.transport.telemetry.metric_table import Role

_DISK_SECONDS = 60.0
"""A disk that machines share may show to one what another has written only after a while."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is there before the ranks meet."""

    parts: Parts
    checkpoint: Checkpoint | None
    gpu: GpuReport


@dataclass(frozen=True, slots=True)
class _Learning:
    parts: Parts
    source: SharedSource
    learner: Learner
    gpu: GpuReport


class LearnerRankHost:
    """Learns in step with rank 0: ``begin``, then ``join``, then ``step`` after ``step``."""

    def __init__(self, settings: str) -> None:
        self._settings = HostSettings.model_validate_json(settings)
        self._ready: _Ready | None = None
        self._learning: _Learning | None = None

    def begin(self, checkpoint: Path | None) -> Process:
        """Read what rank 0 starts from.

        Args:
            checkpoint: its folder; None: the policy that the config names.

        Raises:
            CheckpointError: it is not there, or not whole.
        """
        parts = assemble_service(self._settings.config, begins_with_policy=True)
        read = None if checkpoint is None else _read(checkpoint)
        exposed = expose(self._settings.config, Role.LEARNER_RANK)
        self._ready = _Ready(parts, read, GpuReport(exposed.meter))
        return Process(os.getpid(), exposed.address)

    def join(self, *, rank: int, address: str) -> Joined:
        """Meet the others.

        Args:
            address: where rank 0 listens.

        Raises:
            RankLost: not all came.
        """
        # Let go: the checkpoint is as large as all that is learned.
        ready, self._ready = self._ready, None
        assert ready is not None, "a rank begins before it joins, and joins once"
        ranks = TorchRanks(
            rank=rank,
            num_ranks=ready.parts.config.cluster.learners,
            address=address,
            device=ready.parts.device,
        )
        learner = tuning_learner(ready.parts, ranks)
        if ready.checkpoint is not None:
            restore_learner(ready.checkpoint, learner)
        self._learning = _Learning(ready.parts, SharedSource(ranks), learner, ready.gpu)
        return Joined(learner.policy_version)

    def step(self) -> None:
        """Do what rank 0 does in the same step: learn from its batch, or from none.

        Raises:
            RankLost: another rank is gone.
        """
        assert self._learning is not None, "a rank joins before it learns"
        learner = self._learning.learner
        self._learning.gpu.report()
        collected = self._learning.source.collect(learner.ledger.next_ordinals)
        if collected is not None:
            images_GHWC = own_images(self._learning.parts, learner, collected.scored)
            # Rank 0 has found it too, and tells the driver once it has written the checkpoint.
            with contextlib.suppress(NotFinite):
                learner.reinforce(collected.scored, images_GHWC)


def _read(path: Path) -> Checkpoint:
    deadline = time.monotonic() + _DISK_SECONDS
    while True:
        try:
            return load_checkpoint(path)
        except CheckpointIncomplete as error:
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"a rank of the learner does not see {path}, which another has read: put "
                    "operations.directory on a disk that all machines share"
                ) from error
            time.sleep(1.0)
