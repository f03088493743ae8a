"""A reward worker inside the cluster. Apart from the other services: it starts without torch."""

from __future__ import annotations

import os
from typing import Any

from reward_workers.service import unique_name
from reward_workers.worker import RewardWorker
from rewardtune.exposed import expose
from rewardtune.service_settings import ServiceSettings
from transport.connect import connect_queue
from transport.metric_table import Role


class RewardWorkerHost:
    """``run`` and ``drain`` are called at the same time."""

    def __init__(self, settings: str) -> None:
        told = ServiceSettings.model_validate_json(settings)
        config = told.config
        queue = connect_queue(
            told.queue, run=config.run_name, lease_seconds=config.cluster.lease_seconds
        )
        exposed = expose(config, Role.REWARD_WORKER, health=lambda: self._worker.message)
        self._metrics_address = exposed.address
        self._worker = RewardWorker(
            queue,
            config.reward_workers.model_copy(
                update={"lease_seconds": config.cluster.lease_seconds}
            ),
            data_path=config.data.train,
            name=unique_name(),
            metrics=exposed.meter,
            metrics_address=exposed.address,
        )

    def run(self) -> int:
        """Until it is drained; returns an exit code."""
        return self._worker.run()

    def drain(self) -> None:
        """Finish what is being scored, give back the rest."""
        self._worker.drain()

    def whereabouts(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "metrics_address": self._metrics_address}
