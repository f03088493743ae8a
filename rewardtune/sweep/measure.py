"""The figures of a sweep: greedy metrics of the policy that a run starts from, and of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.json_file import write_json
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import load_policy
from rewardtune.run.assembly import Parts, assemble
from rewardtune.run.progress import counting

Measured = Literal["validation", "holdout"]


@dataclass(frozen=True, slots=True)
class Start:
    """The policy before any step: the same for all runs that differ in how they learn."""

    fingerprint: str
    """Hash of what its figures depend on, the files' content included."""
    metrics: Mapping[str, float]


def start_key(config: RunConfig) -> str:
    """Equal for configs whose runs begin with equal figures."""
    return _hash(
        {
            **_of_the_start(config.model_dump(mode="json")),
            "score_rule": config.evaluation.score_rule,
            "artefacts": str(config.operations.artefacts),
        }
    )


def measure_start(config: RunConfig, data: Measured, folder: Path) -> Start:
    """Measure the policy that a run starts from, unless ``folder`` has it measured already.

    Raises:
        ConfigError, ValueError, OSError: as ``assemble``.
    """
    parts = assemble(config)
    dataset = _dataset(parts.config, data)
    fingerprint = _hash(
        {
            **_of_the_start(parts.config.identity()),
            "score_rule": parts.config.evaluation.score_rule,
            "measured": dataset.digest,
        }
    )
    path = folder / f"{fingerprint[:16]}.json"
    if path.exists():
        return Start(fingerprint, json.loads(path.read_text(encoding="utf-8")))
    with counting("measuring the start") as progress:
        metrics = dict(_metrics(parts, parts.policy, dataset, progress))
    write_json(path, metrics)
    return Start(fingerprint, metrics)


def measure_policy(config: RunConfig, path: Path, data: Measured) -> Mapping[str, float]:
    """Greedy metrics of a policy file on one of the run's data sets, all of it."""
    parts = assemble(config)
    policy = load_policy(path).policy.to(parts.device)
    return _metrics(parts, policy, _dataset(parts.config, data))


def _metrics(
    parts: Parts,
    policy: Policy,
    dataset: ShardDataset,
    progress: Callable[[int, int], None] | None = None,
) -> Mapping[str, float]:
    rule = parts.config.evaluation.score_rule
    return evaluate_policy(
        policy,
        parts.task,
        dataset,
        indices=range(len(dataset)),
        score_rules=[rule] if rule else None,
        view=parts.config.data.views.whole,
        progress=progress,
    ).metrics


def _dataset(config: RunConfig, data: Measured) -> ShardDataset:
    path = getattr(config.data, data)
    assert path is not None
    return open_dataset(path)


def _of_the_start(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that its policy's first figures depend on."""
    names = ("task", "task_options", "reward", "data", "policy", "compute")
    return {name: values[name] for name in names}


def _hash(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
