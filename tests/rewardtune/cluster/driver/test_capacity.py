"""How many reward workers and which depth a run needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.cluster.driver.capacity import (
    Requirement,
    depth_required,
    measured_requirement,
    reward_workers_required,
)
from rewardtune.transport.queue.job_queue import WorkerRecord
from tests.rewardtune.tiny_run import tiny_tune

CONFIG = tiny_tune(Path("data"), Path("policy"), Path("run"))
"""Batches of 8."""


def worker(
    *, state: str = "ready", num_groups: int = 10, core_seconds: float = 1.0
) -> WorkerRecord:
    return WorkerRecord(
        "w", "r", "d", state, num_scorers=1, num_groups=num_groups, core_seconds=core_seconds
    )


def step(seconds: float, *, waited: float = 0.0) -> dict[str, float]:
    return {"seconds": seconds, "seconds_wait": waited}


@pytest.mark.parametrize(
    ("core_seconds", "rate", "cores", "expected"),
    [(0.5, 10.0, 1, 6), (0.5, 10.0, 4, 2), (0.001, 1.0, 1, 1), (4.0, 16.0, 8, 10)],
)
def test_a_fifth_more_cores_than_scoring_keeps_busy(
    core_seconds: float, rate: float, cores: int, expected: int
) -> None:
    found = reward_workers_required(
        core_seconds_per_group=core_seconds, groups_per_second=rate, cores_per_worker=cores
    )
    assert found == expected


@pytest.mark.parametrize(
    ("latency", "expected"), [(0.0, 1), (0.4, 1), (0.5, 1), (0.6, 2), (1.1, 3)]
)
def test_the_depth_is_the_latency_in_steps(latency: float, expected: int) -> None:
    assert depth_required(latency_seconds=latency, step_seconds=0.5) == expected


def test_nothing_is_required_before_anything_was_scored_and_learned_from() -> None:
    assert measured_requirement(CONFIG, [], [step(1.0)], sampling_seconds=0.1) == Requirement()
    assert measured_requirement(CONFIG, [worker()], [], sampling_seconds=0.1) == Requirement()


def test_time_that_the_learner_waits_does_not_count_and_one_step_says_little() -> None:
    """8 groups of 0.1 s per 0.5 s: 1.6 cores, 1.92 with headroom; 4 workers score them in 0.2 s."""
    workers = [worker()] * 4
    steps = [step(0.2), step(0.8), step(2.0, waited=1.5)]
    found = measured_requirement(CONFIG, workers, steps, sampling_seconds=0.25)
    assert found == Requirement(reward_workers=2, depth=1)
    slow = measured_requirement(CONFIG, workers, steps, sampling_seconds=0.35)
    assert slow == Requirement(reward_workers=2, depth=2)


def test_workers_that_are_not_ready_shorten_nothing() -> None:
    workers = [worker(), worker(state="starting", num_groups=0, core_seconds=0.0)]
    found = measured_requirement(CONFIG, workers, [step(0.5)], sampling_seconds=0.0)
    assert found.depth == 2
    draining = [worker(state="draining")]
    assert measured_requirement(CONFIG, draining, [step(0.5)], sampling_seconds=0.0).depth is None
