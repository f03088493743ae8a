"""That a machine too busy for Ray's patience is given a second try."""

from __future__ import annotations

import subprocess
import threading

import pytest
from ray._private.node import Node
from ray._private.services import ProcessInfo

from tests.ray_session import TOO_SLOW, start_patiently


class HalfStarted(Node):
    """A node that has started one process when its time is up."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        fields = dict.fromkeys(ProcessInfo._fields)
        self.all_processes = {"raylet": [ProcessInfo(**{**fields, "process": process})]}
        self.removal_lock = threading.Lock()
        raise Exception(f"{TOO_SLOW}. This could happen because")


def test_a_start_that_took_too_long_is_tried_again_and_leaves_nothing() -> None:
    attempts = []
    with subprocess.Popen(["sleep", "1000"]) as process:

        def start(attempt: int) -> None:
            attempts.append(attempt)
            if attempt == 0:
                HalfStarted(process)

        try:
            start_patiently(start)
            # Waited for: Python warns of processes that nobody waited for.
            assert process.returncode is not None
        finally:
            process.kill()
    assert attempts == [0, 1]


def test_a_second_failure_is_final() -> None:
    attempts = []

    def start(attempt: int) -> None:
        attempts.append(attempt)
        raise Exception(f"{TOO_SLOW}: attempt {attempt}")

    with pytest.raises(Exception, match="attempt 1"):
        start_patiently(start)
    assert attempts == [0, 1]


def test_other_failures_are_not_tried_again() -> None:
    attempts = []

    def start(attempt: int) -> None:
        attempts.append(attempt)
        raise RuntimeError("no room in /dev/shm")

    with pytest.raises(RuntimeError, match="no room"):
        start_patiently(start)
    assert attempts == [0]
