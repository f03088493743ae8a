"""A process of the run as Prometheus sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rewardtune.config.cluster_config import ClusterConfig
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.telemetry.exposition import Exposition, Target, port_range
from rewardtune.transport.telemetry.meter import Telemetry
from rewardtune.transport.telemetry.metric_table import Role


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a process counts in, and where that can be read until it ends."""

    meter: Telemetry
    exposition: Exposition

    @property
    def address(self) -> str:
        return self.exposition.address


def expose(config: RunConfig, role: Role, *, health: Callable[[], str] = str) -> Exposed:
    """Count as this role, and serve the counts.

    Raises:
        OSError: none of the configured ports is free.
    """
    meter = Telemetry(role)
    return Exposed(meter, serve_metrics(config.cluster, meter, health=health))


def serve_metrics(
    settings: ClusterConfig,
    meter: Telemetry,
    *,
    health: Callable[[], str] = str,
    targets: Callable[[], Sequence[Target]] | None = None,
) -> Exposition:
    """Serve /metrics and /healthz, and /sd where there are targets to list.

    Args:
        health: one line that says what is wrong; empty if all is well.

    Raises:
        OSError: none of the configured ports is free.
    """
    return Exposition(
        meter.exposition,
        ports=port_range(settings.metrics_port, settings.num_metrics_ports),
        host=settings.bind,
        health=health,
        targets=targets,
    )
