"""Tune vision models to the metric their users care about, by REINFORCE on task rewards.

The verbs of the command line, for Python; torch is imported when the first of them is used.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

# Modules of the user's that a job brings. Here, as every process of a run passes here; at the end
# of the path, so that none of them shadows one of ours.
if (_code := os.environ.get("REWARDTUNE_CODE")) and str(Path(_code).absolute()) not in sys.path:
    sys.path.append(str(Path(_code).absolute()))

_HOMES = {
    "RunConfig": "rewardtune.config",
    "evaluate": "rewardtune.evaluation",
    "load_config": "rewardtune.config_file",
    "load_policy": "policies.policy_file",
    "load_task": "tasks.task",
    "open_dataset": "tasks.shards",
    "open_run_log": "rewardtune.run_log",
    "pretrain": "rewardtune.local",
    "score": "rewardtune.scoring",
    "tune": "rewardtune.local",
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
