"""What a run needs so that its learner does not wait: reward workers, and depth."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import WorkerRecord

HEADROOM = 1.2
"""Cores there should be, over the cores that scoring keeps busy."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """None before there is anything to tell it by."""

    reward_workers: int | None = None
    """Of the size there are."""
    depth: int | None = None
    """Policy versions that sampling would have to be allowed to run behind."""


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


def depth_required(*, latency_seconds: float, step_seconds: float) -> int:
    """Depth at which a batch is there when the learner asks for it: the latency in steps.

    Args:
        latency_seconds: from the weights of a batch to its last score.
        step_seconds: of a learner that never waits.
    """
    return max(1, math.ceil(latency_seconds / step_seconds))


def measured_requirement(
    config: RunConfig,
    workers: Sequence[WorkerRecord],
    steps: Collection[Mapping[str, float]],
    *,
    sampling_seconds: float | None,
) -> Requirement:
    """What a run needs by what its workers and its last steps took.

    Args:
        steps: their records; the more, the less a single one says.
        sampling_seconds: of one batch, by all samplers together.
    """
    num_groups = sum(worker.num_groups for worker in workers)
    if num_groups == 0 or not steps:
        return Requirement()
    settings, size = config.reward_workers, config.learner.batch_size
    busy_seconds = sum(s["seconds"] - s.get("seconds_wait", 0.0) for s in steps) / len(steps)
    step_seconds = max(busy_seconds, 1e-6)
    core_seconds = sum(worker.core_seconds for worker in workers) / num_groups
    num_scorers = sum(worker.num_scorers for worker in workers if worker.state == "ready")
    depth = None
    if num_scorers and sampling_seconds is not None:
        scoring_seconds = size * core_seconds / (num_scorers * settings.threads)
        depth = depth_required(
            latency_seconds=sampling_seconds + scoring_seconds, step_seconds=step_seconds
        )
    return Requirement(
        reward_workers=reward_workers_required(
            core_seconds_per_group=core_seconds,
            groups_per_second=size / step_seconds,
            cores_per_worker=settings.num_scorers * settings.threads,
        ),
        depth=depth,
    )
