"""What a run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rewardtune.config.run_config import RunConfig
from rewardtune.evaluation.history import History


@dataclass(frozen=True, slots=True)
class RunResult:
    """Of ``tune`` and ``pretrain``, in one process or on a cluster."""

    directory: Path
    policy_path: Path
    """The policy to use: best on the holdout set where there is one, else the last."""
    metrics: Mapping[str, float]
    """Holdout metrics of that policy; empty without a holdout set."""
    is_finished: bool
    """False: stopped by a signal; the same call takes it up again."""


def finished(config: RunConfig, directory: Path, history: History, *, step: int) -> RunResult:
    """What a run came to once its last files are written."""
    last, best = directory / "policy.safetensors", directory / "best.safetensors"
    return RunResult(
        directory=directory,
        policy_path=best if history.best and best.exists() else last,
        metrics={k: v for k, v in history.best.items() if k != "step"},
        is_finished=step >= config.learner.num_steps,
    )
