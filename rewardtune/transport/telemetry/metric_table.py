"""Every metric there is: name, meaning, labels and who reports it.

``rewardtune.transport.telemetry.meter`` refuses what is not in ``METRICS``; the reference in
docs/metrics.md is made from it (``rewardtune.transport.telemetry.metric_reference``); the tests of
deploy/ hold dashboards, alert rules and scaling queries to it.

A counter counts what its process has done since it started, so it falls to zero with a restart,
which ``rate`` and ``increase`` know how to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

PREFIX = "rewardtune_"

TARGET_LABELS = {
    "role": "which service the process is",
    "run": "name of the run",
    "instance": "host:port that was scraped",
    "job": "name of the scrape job",
}
"""What Prometheus adds to every series; no metric may have a label of these names."""


class Role(StrEnum):
    """A kind of process."""

    DRIVER = "driver"
    LEARNER = "learner"
    LEARNER_RANK = "learner_rank"
    """One that computes with the learner: what both would count, the learner counts."""
    SAMPLER = "sampler"
    REWARD_WORKER = "reward_worker"
    EVALUATOR = "evaluator"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table."""

    name: str
    """Without the prefix."""
    kind: Kind
    help: str
    roles: tuple[Role, ...]
    """Who reports it. One kind of process each, so that a sum counts nothing twice."""
    labels: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    """The values each may have; None: a few, named by the task or the build."""
    buckets: tuple[float, ...] = ()
    """Of a histogram: upper bounds, ascending, without infinity."""
    is_mirrored: bool = False
    """Of a counter: somebody else counts, and the process passes on where the count stands."""
    initial: float | None = None
    """Of a gauge without labels: its value before it is set; None: it is absent."""
    needs_gpu: bool = False
    """Absent for good where the process has none."""

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def has_closed_labels(self) -> bool:
        """All of its series are known beforehand."""
        return all(values is not None for values in self.labels.values())

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What its series are called in a query."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.full_name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.full_name,)


_SCORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_WEIGHTS_BUCKETS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_FAILURES = ("exception", "crash", "timeout", "invalid")
RUN_STATES = (
    *("starting", "running", "paused", "draining"),
    *("finished", "drained", "refused", "failed"),
)
_WORKER_STATES = ("starting", "ready", "refused", "draining")

_EVERYONE = tuple(Role)
_TORCH = (Role.LEARNER, Role.LEARNER_RANK, Role.SAMPLER, Role.EVALUATOR)
_DRIVER = (Role.DRIVER,)
_LEARNER = (Role.LEARNER,)
_SAMPLER = (Role.SAMPLER,)
_WORKER = (Role.REWARD_WORKER,)
_EVALUATOR = (Role.EVALUATOR,)

_ALL = (
    # Every process.
    Metric(
        "build_info",
        Kind.GAUGE,
        "1, with the version that the process runs.",
        _EVERYONE,
        labels={"version": None},
    ),
    Metric(
        "gpu_memory_bytes",
        Kind.GAUGE,
        "Memory in use on the process's GPU, by whomever; absent without a GPU.",
        _TORCH,
        needs_gpu=True,
    ),
    Metric(
        "gpu_utilization_ratio",
        Kind.GAUGE,
        "Share of the last moment in which the process's GPU was busy; absent without a GPU.",
        _TORCH,
        needs_gpu=True,
    ),
    # The driver: the run as a whole.
    Metric(
        "run_state",
        Kind.GAUGE,
        "1 for the state that the run is in.",
        _DRIVER,
        labels={"state": RUN_STATES},
    ),
    Metric("run_step", Kind.GAUGE, "Steps taken, as the driver counts them.", _DRIVER),
    Metric(
        "run_steps_skipped_total",
        Kind.COUNTER,
        "Steps that moved no weight: none of their groups was valid.",
        _DRIVER,
    ),
    Metric("run_steps_planned", Kind.GAUGE, "Steps after which the run is finished.", _DRIVER),
    Metric(
        "service_restarts_total",
        Kind.COUNTER,
        "Services started again after they died.",
        _DRIVER,
        labels={"service": ("sampler", "learner", "reward_worker", "queue", "evaluator")},
    ),
    Metric(
        "redraws_total",
        Kind.COUNTER,
        "Micro-batches drawn again because they were lost.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "holdout_metric",
        Kind.GAUGE,
        "Newest figure on the holdout set, by the task's name for it.",
        _DRIVER,
        labels={"metric": None},
    ),
    Metric(
        "evaluations_total",
        Kind.COUNTER,
        "Policies measured on the holdout set, or passed over because one was being measured.",
        _DRIVER,
        labels={"outcome": ("done", "skipped")},
    ),
    # The driver: the queue and who works on it.
    Metric("queue_up", Kind.GAUGE, "1 if the job queue answered when last asked.", _DRIVER),
    Metric("reward_backlog", Kind.GAUGE, "Groups waiting for a reward worker.", _DRIVER),
    Metric("queue_leased", Kind.GAUGE, "Groups that reward workers hold.", _DRIVER),
    Metric("queue_results", Kind.GAUGE, "Scored groups that no step has consumed yet.", _DRIVER),
    Metric(
        "queue_oldest_seconds",
        Kind.GAUGE,
        "Age of the oldest group without a result; 0 if there is none.",
        _DRIVER,
    ),
    Metric(
        "queue_redeliveries_total",
        Kind.COUNTER,
        "Groups handed out again; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "queue_duplicate_commits_total",
        Kind.COUNTER,
        "Scores that came second and were dropped; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "queue_stale_commits_total",
        Kind.COUNTER,
        "Scores that nobody waited for any more; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "queue_dead_total",
        Kind.COUNTER,
        "Groups given up, each with a dead letter; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "queue_bad_entries_total",
        Kind.COUNTER,
        "Entries among the queue's jobs that were none, passed over; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "results_refused_total",
        Kind.COUNTER,
        # Not by worker: who forges results chooses its names. `rewardtune status` lists some.
        "Results that the learner refused; since the term began.",
        _DRIVER,
        is_mirrored=True,
    ),
    Metric(
        "queue_failures_total",
        Kind.COUNTER,
        "Failures that reward workers reported; since the term began.",
        _DRIVER,
        labels={"kind": _FAILURES},
        is_mirrored=True,
    ),
    Metric(
        "reward_workers",
        Kind.GAUGE,
        "Reward workers that say they are there, inside Ray and outside.",
        _DRIVER,
        labels={"state": _WORKER_STATES},
    ),
    Metric(
        "reward_workers_required",
        Kind.GAUGE,
        "Reward workers that would keep the learner from waiting for scores.",
        _DRIVER,
    ),
    # The learner: what it does with its time.
    Metric("learner_steps_total", Kind.COUNTER, "Batches consumed.", _LEARNER),
    Metric(
        "learner_seconds_total",
        Kind.COUNTER,
        "Where the learner's time went.",
        _LEARNER,
        labels={"phase": ("wait", "load", "learn", "exchange", "publish", "checkpoint", "other")},
    ),
    Metric(
        "groups_total",
        Kind.COUNTER,
        "Groups consumed, by what became of them.",
        _LEARNER,
        labels={"outcome": ("trained", "invalid", "skipped")},
    ),
    Metric(
        "samples_total",
        Kind.COUNTER,
        "Rollouts consumed: trained on, or only compared with.",
        _LEARNER,
        labels={"use": ("train", "baseline")},
    ),
    Metric("tokens_total", Kind.COUNTER, "Tokens of the rollouts consumed.", _LEARNER),
    Metric("policy_version", Kind.GAUGE, "Batches in the newest weights.", _LEARNER),
    Metric("term", Kind.GAUGE, "Which start of the learner this is.", _LEARNER),
    Metric(
        "staleness",
        Kind.GAUGE,
        "Policy versions between the last batch's rollouts and the weights that it moved.",
        _LEARNER,
    ),
    Metric(
        "checkpoint_timestamp_seconds",
        Kind.GAUGE,
        "When the newest checkpoint was written, or the learner began if there is none since: "
        "what was learned after it would be lost.",
        _LEARNER,
    ),
    # The learner: how learning goes.
    Metric(
        "reward",
        Kind.GAUGE,
        "Mean reward of the last batch, in the task's unit; the component 'total' is what is "
        "learned from.",
        _LEARNER,
        labels={"component": None},
    ),
    Metric(
        "reward_std",
        Kind.GAUGE,
        "Standard deviation of the reward within a group, mean over the last batch.",
        _LEARNER,
    ),
    Metric(
        "zero_advantage_ratio",
        Kind.GAUGE,
        "Share of the last batch's groups whose rollouts all got the same reward.",
        _LEARNER,
    ),
    Metric("grad_norm", Kind.GAUGE, "Norm of the last batch's gradient.", _LEARNER),
    Metric(
        "policy_entropy",
        Kind.GAUGE,
        "Mean of minus the log-prob of the drawn tokens, in nats.",
        _LEARNER,
    ),
    Metric(
        "kl_to_initial",
        Kind.GAUGE,
        "KL divergence from the pretrained policy, in nats per token, when last measured.",
        _EVALUATOR,
    ),
    Metric(
        "importance_weight_mean",
        Kind.GAUGE,
        "Mean truncated importance weight of the last batch; 1 where none is used.",
        _LEARNER,
        initial=1.0,
    ),
    Metric(
        "effective_sample_ratio",
        Kind.GAUGE,
        "Share of the last batch's rollouts that its importance weights leave; 1 without them.",
        _LEARNER,
        initial=1.0,
    ),
    Metric(
        "log_prob_gap",
        Kind.GAUGE,
        "Mean absolute difference between the learner's log-probs and the sampler's, in nats.",
        _LEARNER,
    ),
    Metric("sequence_length", Kind.GAUGE, "Mean tokens of a rollout of the last batch.", _LEARNER),
    # Weights on their way.
    Metric(
        "weights_publish_seconds",
        Kind.HISTOGRAM,
        "Time to put a version into the weight store.",
        _LEARNER,
        buckets=_WEIGHTS_BUCKETS,
    ),
    Metric("weights_bytes", Kind.GAUGE, "Size of a published version.", _LEARNER),
    Metric(
        "weights_changed_bytes_ratio",
        Kind.GAUGE,
        "Share of the bytes that differ between the last two published versions.",
        _LEARNER,
    ),
    Metric(
        "weights_load_seconds",
        Kind.HISTOGRAM,
        "Time to fetch a version and swap it in.",
        _SAMPLER,
        buckets=_WEIGHTS_BUCKETS,
    ),
    Metric(
        "canary_error",
        Kind.GAUGE,
        "Largest difference of the canary's log-probs from the learner's, when last compared.",
        _SAMPLER,
    ),
    # Samplers.
    Metric(
        "sampler_seconds_total",
        Kind.COUNTER,
        "Where a sampler's time went; blocked: it had nothing to draw.",
        _SAMPLER,
        labels={"phase": ("load", "images", "encode", "decode", "put", "blocked")},
    ),
    Metric("sampler_groups_total", Kind.COUNTER, "Groups drawn.", _SAMPLER),
    Metric("sampler_policy_version", Kind.GAUGE, "Version that the sampler has loaded.", _SAMPLER),
    # Reward workers.
    Metric(
        "reward_worker_groups_total",
        Kind.COUNTER,
        "Groups leased, by how that ended.",
        _WORKER,
        labels={"outcome": ("accepted", "duplicate", "stale", "failed", "given_back")},
    ),
    Metric(
        "reward_worker_score_seconds",
        Kind.HISTOGRAM,
        "Time of a group in a reward worker: waiting for a scorer, opening the example, scoring.",
        _WORKER,
        labels={"phase": ("wait", "load", "score")},
        buckets=_SCORE_BUCKETS,
    ),
    Metric(
        "reward_worker_core_seconds_total",
        Kind.COUNTER,
        "Seconds that groups occupied scorers, times the threads of each.",
        _WORKER,
    ),
    Metric(
        "reward_worker_errors_total",
        Kind.COUNTER,
        "Groups that could not be scored.",
        _WORKER,
        labels={"kind": _FAILURES},
    ),
    Metric(
        "reward_worker_scorers",
        Kind.GAUGE,
        "Scoring processes.",
        _WORKER,
        labels={"state": ("starting", "ready", "busy")},
    ),
    Metric(
        "reward_worker_restarts_total",
        Kind.COUNTER,
        "Scoring processes replaced.",
        _WORKER,
        labels={"reason": ("crash", "timeout", "startup", "recycled", "unfit")},
    ),
    Metric(
        "reward_worker_state",
        Kind.GAUGE,
        "1 for the state that the reward worker is in.",
        _WORKER,
        labels={"state": _WORKER_STATES},
    ),
    Metric(
        "reward_worker_waiting_for_people",
        Kind.GAUGE,
        "Groups that wait for people to score them; 0 where no reward server declares them.",
        _WORKER,
        initial=0.0,
    ),
    Metric(
        "score_cache_hits_total",
        Kind.COUNTER,
        "Rollouts that equalled another of their group and were not scored again.",
        _LEARNER,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
"""By name, without the prefix."""
