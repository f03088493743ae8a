"""What holds for every test."""

from __future__ import annotations

import os

# Set before torch or ray is imported anywhere. Idle threads that spin slow two processes on two
# cores down several times; Ray's settings keep it quiet, offline and free of files in HOME.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

from hypothesis import HealthCheck, settings

from tests.ray_session import ray_session
from tests.skipped import pytest_terminal_summary

__all__ = ["pytest_terminal_summary", "ray_session"]

# The same examples on every run: a failure that comes and goes tells nobody anything.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")
