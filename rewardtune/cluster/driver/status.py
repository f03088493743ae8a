"""A live run as plain JSON values, from what its driver knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rewardtune.cluster.driver.fleet import Hosted
from rewardtune.cluster.driver.pace import pace
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import WorkerRecord
from rewardtune.transport.telemetry.exposition import Target


def told_by_config(config: RunConfig) -> dict[str, Any]:
    """What stays as it is."""
    return {
        "run": config.run_name,
        "directory": str(config.operations.directory),
        "num_steps": config.learner.num_steps,
        "depth": config.depth,
    }


def told_by_steps(recent: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """How the run goes, by the records of its last steps, the newest last."""
    newest = recent[-1] if recent else {}
    pace_now = pace(recent)
    seconds, waited = newest.get("seconds"), newest.get("seconds_wait")
    return {
        "reward": newest.get("reward"),
        "staleness": newest.get("staleness"),
        "step_seconds": seconds,
        "steps_per_second": pace_now.steps_per_second,
        "phases": pace_now.phases,
        "wait_ratio": waited / seconds if seconds and waited is not None else None,
    }


def told_by_services(
    others: Sequence[Hosted], workers: Sequence[Hosted], records: Sequence[WorkerRecord]
) -> dict[str, Any]:
    """Who is there: every service of the driver, and all reward workers the queue has heard of."""
    in_ray = {worker.metrics_address for worker in workers} - {""}
    return {
        "services": [
            {
                "name": hosted.service.name,
                "kind": hosted.kind,
                "pid": hosted.pid,
                "state": hosted.state,
                "restarts": hosted.restarts,
            }
            for hosted in [*others, *workers]
        ],
        "reward_workers": [
            {**asdict(record), "is_in_ray": record.metrics_address in in_ray} for record in records
        ],
    }


def targets_of(
    others: Sequence[Hosted], records: Sequence[WorkerRecord], *, run: str
) -> list[Target]:
    """Who can be scraped: those services, and the reward workers that the queue has heard of."""
    found = [Target(h.metrics_address, h.kind, run) for h in others if h.metrics_address]
    found += [
        Target(record.metrics_address, "reward_worker", run)
        for record in records
        if record.metrics_address
    ]
    return found
