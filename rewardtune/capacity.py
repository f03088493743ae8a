"""How many reward workers a run needs, so that scoring is not the learner's brake."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rewardtune.config import RunConfig
from transport.job_queue import WorkerRecord

HEADROOM = 1.2
"""Cores there should be, over the cores that scoring keeps busy."""


def reward_workers_required(
    *,
    core_seconds_per_group: float,
    groups_per_second: float,
    cores_per_worker: int,
    headroom: float = HEADROOM,
) -> int:
    """Workers whose cores score what the learner consumes, and some to spare.

    Args:
        core_seconds_per_group: measured.
        groups_per_second: that the learner would consume if it never waited.
        cores_per_worker: scorers times threads.
    """
    cores = headroom * core_seconds_per_group * groups_per_second
    return max(1, math.ceil(cores / cores_per_worker))


def measured_requirement(
    config: RunConfig, workers: Sequence[WorkerRecord], record: Mapping[str, float]
) -> int | None:
    """What a run needs by what its workers and its newest step took; None before there is any."""
    num_groups = sum(worker.num_groups for worker in workers)
    if num_groups == 0 or not record:
        return None
    settings = config.reward_workers
    busy_seconds = record["seconds"] - record.get("seconds_wait", 0.0)
    return reward_workers_required(
        core_seconds_per_group=sum(worker.core_seconds for worker in workers) / num_groups,
        groups_per_second=config.learner.batch_size / max(busy_seconds, 1e-6),
        cores_per_worker=settings.num_scorers * settings.threads,
    )
