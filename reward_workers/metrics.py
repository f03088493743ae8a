"""What a reward worker reports.

The names that it uses; ``rewardtune.transport.telemetry.meter`` declares them with their help and
label values.
"""

from __future__ import annotations

from typing import Protocol

GROUPS = "reward_worker_groups_total"
"""By outcome: accepted, duplicate, stale, failed, given_back."""
SCORE_SECONDS = "reward_worker_score_seconds"
"""By phase: wait (leased, no scorer free), load (example and target), score."""
CORE_SECONDS = "reward_worker_core_seconds_total"
"""Seconds that scorers were occupied by a group, times their threads."""
ERRORS = "reward_worker_errors_total"
"""By kind of failure: exception, crash, timeout, invalid."""
SCORERS = "reward_worker_scorers"
"""By state: starting, ready, busy."""
RESTARTS = "reward_worker_restarts_total"
"""Scorers replaced, by reason: crash, timeout, startup, recycled, unfit."""
STATE = "reward_worker_state"
"""1 for the state that the worker is in: starting, ready, refused, draining."""
HUMAN_WAITING = "reward_worker_waiting_for_people"
"""Groups that are with people."""


class Metrics(Protocol):
    """Where figures go."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None: ...

    def set(self, name: str, value: float, **labels: str) -> None: ...

    def observe(self, name: str, seconds: float, **labels: str) -> None: ...
