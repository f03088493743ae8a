"""The other ranks of a learner: each computes its shards of every step, and nothing else.

Rank 0 (``services.LearnerHost``) holds the term, reads the queue, publishes and writes. These
start from the same weights, are shared the same batches, exchange gradients and apply the same
update; so they hold the learner's weights without ever being sent them.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Any

from learner.checkpoint import Checkpoint, CheckpointError, CheckpointIncomplete, load_checkpoint
from learner.ranks import TorchRanks
from learner.source import SharedSource
from rewardtune.cluster.hosts.exposed import Exposed, expose
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.settings import ServiceSettings
from rewardtune.run.assembly import assemble_service
from rewardtune.run.state import restore_learner
from rewardtune.run.tuning import own_images, tuning_learner
from rewardtune.transport.telemetry.metric_table import Role

_DISK_SECONDS = 60.0
"""A disk that machines share may show to one what another has written only after a while."""


class LearnerRankHost:
    """Learns in step with rank 0."""

    def __init__(self, settings: str) -> None:
        self._settings = ServiceSettings.model_validate_json(settings)

    def begin(self, checkpoint: str | None) -> dict[str, Any]:
        """Read what rank 0 starts from.

        Args:
            checkpoint: its folder; None: the policy that the config names.

        Raises:
            CheckpointError: it is not there, or not whole.
        """
        self._parts = assemble_service(self._settings.config, begins_with_policy=True)
        self._checkpoint = None if checkpoint is None else _read(Path(checkpoint))
        return {"pid": os.getpid(), "metrics_address": self._exposed.address}

    def join(self, rank: int, address: str) -> None:
        """Meet the others.

        Args:
            address: where rank 0 listens.

        Raises:
            RankLost: not all came.
        """
        ranks = TorchRanks(
            rank=rank,
            num_ranks=self._parts.config.cluster.learners,
            address=address,
            device=self._parts.device,
        )
        self._source = SharedSource(ranks)
        self._learner = tuning_learner(self._parts, ranks)
        if self._checkpoint is not None:
            restore_learner(self._checkpoint, self._learner)
            self._checkpoint = None  # as large as all that is learned

    def step(self) -> None:
        """Do what rank 0 does in the same step: learn from its batch, or from none.

        Raises:
            RankLost: another rank is gone.
        """
        self._gpu.report()
        collected = self._source.collect(self._learner.ledger.next_ordinals)
        if collected is not None:
            images_GHWC = own_images(self._parts, self._learner, collected.scored)
            self._learner.reinforce(collected.scored, images_GHWC)

    @functools.cached_property
    def _exposed(self) -> Exposed:
        return expose(self._settings.config, Role.LEARNER_RANK)

    @functools.cached_property
    def _gpu(self) -> GpuReport:
        return GpuReport(self._exposed.meter)


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
