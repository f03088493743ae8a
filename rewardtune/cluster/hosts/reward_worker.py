"""The host of a reward worker inside the cluster. It starts without torch, unlike the others."""

from __future__ import annotations

import os

from reward_workers.service import unique_name
from reward_workers.worker import RewardWorker
from rewardtune.cluster.hosts.exposed import expose
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.settings import HostSettings, unhurried
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.telemetry.metric_table import Role


class RewardWorkerHost:
    """``drain`` may be called at any time, also while another call is on."""

    def __init__(self, settings: str) -> None:
        self._settings = HostSettings.model_validate_json(settings)
        self._worker: RewardWorker | None = None
        self._is_drained = False

    def begin(self) -> Process:
        """Connect to the queue.

        Raises:
            QueueUnavailable: not there yet; may be called again.
        """
        told, config = self._settings, self._settings.config
        with unhurried():
            queue = connect_queue(
                told.queue_here,
                run=config.run_name,
                lease_seconds=config.cluster.lease_seconds,
                security=config.security,
            )
        exposed = expose(config, Role.REWARD_WORKER, health=lambda: worker.message)
        worker = RewardWorker(
            queue,
            config.reward_workers.model_copy(
                update={"lease_seconds": config.cluster.lease_seconds}
            ),
            data_path=config.data.train,
            artefacts_path=config.operations.artefacts,
            security=config.security,
            name=unique_name(),
            metrics=exposed.meter,
            metrics_address=exposed.address,
        )
        self._worker = worker
        return Process(os.getpid(), exposed.address)

    def run(self) -> int:
        """Until it is drained; returns an exit code."""
        assert self._worker is not None, "a worker begins before it runs"
        if self._is_drained:
            self._worker.drain()
        return self._worker.run()

    def drain(self) -> None:
        """Finish what is being scored, give back the rest."""
        self._is_drained = True
        if self._worker is not None:
            self._worker.drain()
