"""What "good" means: the contract of a task, and one folder per task.

What a task from outside needs is to be had from here; read when it is asked for, because a reward's
digest covers whatever its module imports, and a protocol decides no reward.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["CuttingTask", "InputTask", "PicturedTask", "Task", "TokenRewardsTask", "load_task"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module("rewardtune.tasks.task"), name)
