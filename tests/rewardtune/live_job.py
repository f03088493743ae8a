"""A job that a test follows: the dashboard that takes it, and the run that it drives."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from rewardtune.cluster.control.client import ControlClient
from rewardtune.cluster.control.record import NotLive

PATIENCE_SECONDS = 90.0
"""Longer than any busy machine needs."""


def live_client(directory: Path, tell: Callable[[], str] = str) -> ControlClient:
    found: list[ControlClient] = []

    def is_live() -> bool:
        try:
            found.append(ControlClient.of_run(directory))
        except NotLive:
            return False
        return True

    wait_until(is_live, tell)
    return found[0]


def wait_until(is_so: Callable[[], bool], tell: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Also that it wants to know who asks."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refused:
        return refused.code in (401, 403)
    except OSError:
        return False
