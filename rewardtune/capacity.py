"""How many reward workers a run needs, so that scoring is not the learner's brake."""

from __future__ import annotations

import math

HEADROOM = 1.2
"""Cores there should be, over the cores that scoring keeps busy."""


def reward_workers_required(
    *,
    core_seconds_per_group: float,
    groups_per_second: float,
    cores_per_worker: int,
    headroom: float = HEADROOM,
) -> int:
    """Workers whose cores score what the learner consumes, and some to spare.

    Args:
        core_seconds_per_group: measured.
        groups_per_second: that the learner would consume if it never waited.
        cores_per_worker: scorers times threads.
    """
    cores = headroom * core_seconds_per_group * groups_per_second
    return max(1, math.ceil(cores / cores_per_worker))
