"""What the learner reports fits the metric table, and adds up."""

from __future__ import annotations

from learner.metrics import report_step
from rewardtune.transport.telemetry.meter import Telemetry

RECORD = {
    "step": 7,
    "seconds": 1.0,
    "seconds_wait": 0.25,
    "seconds_learn": 0.5,
    "seconds_publish": 0.125,
    "seconds_other": 0.125,
    "reward": 2.0,
    "reward_std": 0.5,
    "reward_match": 2.5,
    "entropy": 1.25,
    "num_tokens": 640.0,
    "num_repeated": 3.0,
}


def test_a_step_is_told_whole() -> None:
    meter = Telemetry("learner")
    for _ in range(2):
        report_step(
            meter,
            RECORD,
            num_trained=14,
            num_invalid=1,
            num_skipped=1,
            rollouts_trained=16,
            rollouts_compared=112,
        )
    shown = meter.exposition().decode().splitlines()
    for line in (
        "rewardtune_learner_steps_total 2.0",
        'rewardtune_learner_seconds_total{phase="learn"} 1.0',
        'rewardtune_groups_total{outcome="trained"} 28.0',
        'rewardtune_groups_total{outcome="invalid"} 2.0',
        'rewardtune_samples_total{use="baseline"} 224.0',
        "rewardtune_tokens_total 1280.0",
        "rewardtune_score_cache_hits_total 6.0",
        "rewardtune_policy_version 7.0",
        'rewardtune_reward{component="total"} 2.0',
        'rewardtune_reward{component="match"} 2.5',
        "rewardtune_reward_std 0.5",
        "rewardtune_policy_entropy 1.25",
        "rewardtune_weights_publish_seconds_count 2.0",
    ):
        assert line in shown
