"""What the driver reports: the run's state, and what the job queue says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rewardtune.transport.queue.job_queue import QueueStats, WorkerRecord
from rewardtune.transport.telemetry.meter import Meter
from rewardtune.transport.telemetry.metric_table import RUN_STATES

_WORKER_STATES = ("starting", "ready", "refused", "draining")


def report_state(meter: Meter, state: str) -> None:
    """One of the run's states."""
    for each in RUN_STATES:
        meter.set("run_state", float(each == state), state=each)


def report_queue(meter: Meter, stats: QueueStats | None) -> None:
    """None: it did not answer."""
    meter.set("queue_up", float(stats is not None))
    if stats is None:
        return
    meter.set("reward_backlog", stats.backlog)
    meter.set("queue_leased", stats.leased)
    meter.set("queue_results", stats.results)
    meter.set("queue_oldest_seconds", stats.oldest_seconds)
    meter.set_total("queue_redeliveries_total", stats.redeliveries)
    meter.set_total("queue_duplicate_commits_total", stats.duplicate_commits)
    meter.set_total("queue_stale_commits_total", stats.stale_commits)
    meter.set_total("queue_dead_total", stats.dead)
    meter.set_total("queue_bad_entries_total", stats.bad_entries)
    meter.set_total("results_refused_total", sum(stats.refused.values()))
    for kind, count in stats.failures.items():
        meter.set_total("queue_failures_total", count, kind=kind)


def report_workers(
    meter: Meter, workers: Sequence[WorkerRecord], *, num_required: int | None
) -> None:
    """All that say they are there; how many are needed, once that is known."""
    counts = Counter(worker.state for worker in workers)
    for state in _WORKER_STATES:
        meter.set("reward_workers", counts[state], state=state)
    if num_required is not None:
        meter.set("reward_workers_required", num_required)


def report_evaluation(meter: Meter, metrics: Mapping[str, float]) -> None:
    meter.count("evaluations_total", outcome="done")
    for name, value in metrics.items():
        meter.set("holdout_metric", value, metric=name)
