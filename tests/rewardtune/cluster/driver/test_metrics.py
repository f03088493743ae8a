"""What the driver reports fits the metric table, whatever state the run is in."""

from __future__ import annotations

import pytest

from rewardtune.cluster.driver.metrics import (
    report_evaluation,
    report_queue,
    report_state,
    report_workers,
)
from rewardtune.transport.queue.job_queue import FailureKind, QueueStats, WorkerRecord
from rewardtune.transport.telemetry.meter import Telemetry
from rewardtune.transport.telemetry.metric_table import RUN_STATES

STATS = QueueStats(
    term=1,
    frontier=8,
    backlog=3,
    leased=2,
    results=1,
    oldest_seconds=1.5,
    redeliveries=4,
    failures={kind.value: 1 for kind in FailureKind},
)


def lines(meter: Telemetry) -> list[str]:
    return meter.exposition().decode().splitlines()


@pytest.mark.parametrize("state", RUN_STATES)
def test_a_run_is_in_exactly_one_state(state: str) -> None:
    meter = Telemetry("driver")
    report_state(meter, state)
    states = [line for line in lines(meter) if line.startswith("rewardtune_run_state{")]
    assert sorted(line.split()[-1] for line in states) == ["0.0"] * 7 + ["1.0"]


def test_the_queue_is_mirrored_and_its_loss_is_shown() -> None:
    meter = Telemetry("driver")
    report_queue(meter, STATS)
    assert "rewardtune_queue_up 1.0" in lines(meter)
    assert "rewardtune_reward_backlog 3.0" in lines(meter)
    assert "rewardtune_queue_redeliveries_total 4.0" in lines(meter)
    assert 'rewardtune_queue_failures_total{kind="crash"} 1.0' in lines(meter)
    report_queue(meter, None)
    assert "rewardtune_queue_up 0.0" in lines(meter)


def test_workers_are_counted_by_state() -> None:
    meter = Telemetry("driver")
    workers = [
        WorkerRecord(f"w{i}", "digest", "data", state, num_scorers=1)
        for i, state in enumerate(["ready", "ready", "refused"])
    ]
    report_workers(meter, workers, num_required=2)
    assert 'rewardtune_reward_workers{state="ready"} 2.0' in lines(meter)
    assert 'rewardtune_reward_workers{state="draining"} 0.0' in lines(meter)
    assert "rewardtune_reward_workers_required 2.0" in lines(meter)


def test_evaluations_are_counted_and_show_their_newest_figures() -> None:
    meter = Telemetry("driver")
    report_evaluation(meter, {"map": 0.25})
    report_evaluation(meter, {"map": 0.5})
    assert 'rewardtune_evaluations_total{outcome="done"} 2.0' in lines(meter)
    assert 'rewardtune_holdout_metric{metric="map"} 0.5' in lines(meter)
