"""A live run as an operator sees it: the fields below are public, as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rewardtune.cluster.driver.pace import pace
from rewardtune.cluster.driver.service import Service
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import QueueStats, WorkerRecord
from rewardtune.transport.telemetry.exposition import Target


@dataclass(frozen=True, slots=True)
class DriverStatus:
    """What only the driver knows. None: not known yet."""

    state: str
    term: int
    step: int
    best: Mapping[str, float]
    """The step of the best policy and its holdout metrics; empty if nothing was measured."""
    evaluations_skipped: int
    redraws: int
    draws_in_flight: int
    reward_workers_wanted: int
    reward_workers_required: int | None
    depth_required: int | None
    queue: QueueStats | None


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """What stays as it is."""

    run: str
    directory: str
    num_steps: int
    depth: int


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How the run goes. None: not known yet."""

    reward: float | None
    staleness: float | None
    step_seconds: float | None
    steps_per_second: float | None
    phases: Mapping[str, float]
    """Mean seconds per step, by phase."""
    wait_ratio: float | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service of the driver."""

    name: str
    kind: str
    pid: int
    state: str
    restarts: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """All of it."""

    driver: DriverStatus
    config: ConfigStatus
    steps: StepStatus
    services: Sequence[ServiceStatus]
    reward_workers: Sequence[WorkerRecord]
    """All that the queue has heard of."""
    in_ray: frozenset[str]
    """Metrics addresses of the reward workers that the driver has started."""

    def to_json(self) -> dict[str, Any]:
        """In one flat object; ``services`` and ``reward_workers`` are lists of objects."""
        return {
            **asdict(self.driver),
            **asdict(self.config),
            **asdict(self.steps),
            "services": [asdict(service) for service in self.services],
            "reward_workers": [
                {**asdict(record), "is_in_ray": record.metrics_address in self.in_ray}
                for record in self.reward_workers
            ],
        }


def run_status(
    driver: DriverStatus,
    config: RunConfig,
    *,
    recent: Sequence[Mapping[str, float]],
    others: Sequence[Service[Any]],
    workers: Sequence[Service[Any]],
    records: Sequence[WorkerRecord],
) -> RunStatus:
    """
    Args:
        recent: the records of the last steps, the newest last.
        others: all services but the reward workers.
        workers: reward workers inside Ray.
        records: of all reward workers that the queue has heard of.
    """
    return RunStatus(
        driver,
        config=_config_status(config),
        steps=_step_status(recent),
        services=[_service_status(service) for service in [*others, *workers]],
        reward_workers=records,
        in_ray=frozenset(worker.metrics_address for worker in workers) - {""},
    )


def targets_of(
    others: Sequence[Service[Any]], records: Sequence[WorkerRecord], *, run: str
) -> list[Target]:
    """Who can be scraped: those services, and the reward workers that the queue has heard of."""
    found = [Target(s.metrics_address, s.role, run) for s in others if s.metrics_address]
    found += [
        Target(record.metrics_address, "reward_worker", run)
        for record in records
        if record.metrics_address
    ]
    return found


def _config_status(config: RunConfig) -> ConfigStatus:
    return ConfigStatus(
        run=config.run_name,
        directory=str(config.operations.directory),
        num_steps=config.learner.num_steps,
        depth=config.depth,
    )


def _step_status(recent: Sequence[Mapping[str, float]]) -> StepStatus:
    newest = recent[-1] if recent else {}
    pace_now = pace(recent)
    seconds, waited = newest.get("seconds"), newest.get("seconds_wait")
    return StepStatus(
        reward=newest.get("reward"),
        staleness=newest.get("staleness"),
        step_seconds=seconds,
        steps_per_second=pace_now.steps_per_second,
        phases=pace_now.phases,
        wait_ratio=waited / seconds if seconds and waited is not None else None,
    )


def _service_status(service: Service[Any]) -> ServiceStatus:
    return ServiceStatus(
        name=service.name,
        kind=service.role,
        pid=service.pid,
        state=service.state,
        restarts=service.restarts,
    )
