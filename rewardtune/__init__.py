"""Tune vision models to the metric their users care about, by REINFORCE on task rewards.

The verbs of the command line, for Python; torch is imported when the first of them is used.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from rewardtune.own_packages import check_packages

# Modules of the user's that a job brings. Here, as every process of a run passes here; at the end
# of the path, so that none of them shadows one of ours.
if (_code := os.environ.get("REWARDTUNE_CODE")) and os.path.abspath(_code) not in sys.path:
    sys.path.append(os.path.abspath(_code))

check_packages()

_HOMES = {
    "RunConfig": "rewardtune.config.run_config",
    "evaluate": "rewardtune.evaluation.evaluate",
    "load_config": "rewardtune.config.config_file",
    "load_policy": "rewardtune.policies.policy_file",
    "load_task": "rewardtune.tasks.task",
    "open_dataset": "rewardtune.datasets.shards.dataset",
    "open_run_log": "rewardtune.run.log",
    "pretrain": "rewardtune.run.local",
    "score": "rewardtune.evaluation.results_files",
    "tune": "rewardtune.run.local",
}
_NAMES = {"evaluate": "evaluate_policy"}

__all__ = [
    "RunConfig",
    "evaluate",
    "load_config",
    "load_policy",
    "load_task",
    "open_dataset",
    "open_run_log",
    "pretrain",
    "score",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rewardtune' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), _NAMES.get(name, name))
