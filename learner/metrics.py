"""What the learner reports, from the record of each step."""

from __future__ import annotations

from collections.abc import Mapping

from rewardtune.transport.telemetry.meter import Meter

_GAUGES = {
    "staleness": "staleness",
    "reward_std": "reward_std",
    "zero_advantage_ratio": "zero_advantage_ratio",
    "grad_norm": "grad_norm",
    "entropy": "policy_entropy",
    "importance_weight_mean": "importance_weight_mean",
    "effective_sample_ratio": "effective_sample_ratio",
    "log_prob_gap": "log_prob_gap",
    "sequence_length": "sequence_length",
    "weights_bytes": "weights_bytes",
    "weights_changed_bytes_ratio": "weights_changed_bytes_ratio",
}
"""Key of the record, name of the gauge."""
_PHASES = ("wait", "load", "learn", "exchange", "publish", "checkpoint", "other")


def report_step(
    meter: Meter,
    record: Mapping[str, float],
    *,
    num_trained: int,
    num_invalid: int,
    num_skipped: int,
    rollouts_trained: int,
    rollouts_compared: int,
) -> None:
    """One consumed batch.

    Args:
        record: as the log has it.
        num_trained, num_invalid, num_skipped: its groups, by what became of them.
        rollouts_trained, rollouts_compared: its rollouts, trained on or baseline only.
    """
    meter.count("learner_steps_total")
    for phase in _PHASES:
        meter.count("learner_seconds_total", record.get(f"seconds_{phase}", 0.0), phase=phase)
    meter.count("groups_total", num_trained, outcome="trained")
    meter.count("groups_total", num_invalid, outcome="invalid")
    meter.count("groups_total", num_skipped, outcome="skipped")
    meter.count("samples_total", rollouts_trained, use="train")
    meter.count("samples_total", rollouts_compared, use="baseline")
    meter.count("score_cache_hits_total", record.get("num_repeated", 0.0))
    meter.count("tokens_total", record.get("num_tokens", 0.0))
    meter.set("policy_version", record["step"])
    for key, name in _GAUGES.items():
        if key in record:
            meter.set(name, record[key])
    if "seconds_publish" in record:
        meter.observe("weights_publish_seconds", record["seconds_publish"])
    if "reward" in record:
        meter.set("reward", record["reward"], component="total")
    for key, value in record.items():
        if key.startswith("reward_") and key != "reward_std":
            meter.set("reward", value, component=key.removeprefix("reward_"))
