"""The host of a sampler."""

from __future__ import annotations

import os
from dataclasses import dataclass

from rewardtune.cluster.hosts.exposed import expose
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.settings import HostSettings, unhurried
from rewardtune.records import Published
from rewardtune.run.assembly import assemble_service, build_sampler
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.weights.connect import connect_weights
from sampler.metrics import DrawReport
from sampler.service import SamplerService


@dataclass(frozen=True, slots=True)
class _Sampling:
    service: SamplerService
    gpu: GpuReport


class SamplerHost:
    """Draws micro-batches into the queue.

    The constructor only reads its settings. ``begin`` does what takes time or can fail, so that
    its error reaches the driver as itself.
    """

    def __init__(self, settings: str) -> None:
        self._settings = HostSettings.model_validate_json(settings)
        self._sampling: _Sampling | None = None

    def begin(self) -> Process:
        """Build the policy, connect.

        Raises:
            QueueUnavailable, WeightsUnavailable: not there yet; may be called again.
        """
        parts = assemble_service(self._settings.config)
        with unhurried():
            queue = connect_queue(
                self._settings.queue_here,
                run=parts.config.run_name,
                lease_seconds=parts.config.cluster.lease_seconds,
                security=parts.config.security,
            )
            store = connect_weights(self._settings.weights)
        exposed = expose(parts.config, Role.SAMPLER)
        self._sampling = _Sampling(
            SamplerService(
                build_sampler(parts),
                queue=queue,
                store=store,
                seal=self._settings.seal,
                meter=exposed.meter,
            ),
            gpu=GpuReport(exposed.meter),
        )
        return Process(os.getpid(), exposed.address)

    def draw(self, ordinals: range, *, published: Published) -> DrawReport:
        """Draw one micro-batch into the queue.

        Raises:
            As ``SamplerService.draw``.
        """
        assert self._sampling is not None, "a sampler begins before it draws"
        report = self._sampling.service.draw(published, ordinals)
        self._sampling.gpu.report()
        return report
