"""What "good" means: the contract of a task, and one folder per task.

What a task from outside needs is to be had from here; read when it is asked for, because a reward's
digest covers whatever its module imports, and a protocol decides no reward.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "ProbedTask": "rewardtune.tasks.probe",
    "ResultsTask": "rewardtune.tasks.results_files",
}

__all__ = [
    "BoundedTask",
    "CuttingTask",
    "InputTask",
    "PicturedTask",
    "ProbedTask",
    "ResultsTask",
    "Task",
    "TokenRewardsTask",
    "load_task",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "rewardtune.tasks.task")), name)
