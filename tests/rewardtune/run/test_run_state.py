"""What RUN/state.json says of a run, and which errors are the input's fault."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from learner.checkpoint import CheckpointError
from rewardtune.config.run_config import ConfigError
from rewardtune.run.run_state import (
    STATE_NAME,
    RunStateFile,
    is_refusal,
    read_run_state,
    run_state,
)
from rewardtune.transport.queue.job_queue import QueueRefused, QueueUnavailable
from rewardtune.transport.term import StaleTerm


def stop_at_step_2(
    directory: Path, error: BaseException, *, before: Callable[[], None] = lambda: None
) -> None:
    with run_state(directory, num_steps=4) as told:
        told.tell("running", step=2)
        before()
        raise error


@pytest.mark.parametrize(
    ("error", "is_refused"),
    [
        (ConfigError("unknown key"), True),
        (ValueError("no such task"), True),
        (CheckpointError("every checkpoint is damaged"), True),
        (QueueRefused("another run's"), True),
        (FileNotFoundError(errno.ENOENT, "no such file"), True),
        (PermissionError(errno.EACCES, "not yours"), True),
        (QueueUnavailable("Redis is away"), False),
        (ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens"), False),
        (OSError(errno.ENOSPC, "the disk is full"), False),
        (OSError("none of the ports can be had"), False),
        (RuntimeError("shapes differ"), False),
        (MemoryError(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else "",
)
def test_only_what_no_retry_mends_is_a_refusal(
    tmp_path: Path, error: BaseException, is_refused: bool
) -> None:
    assert is_refusal(error) is is_refused
    with pytest.raises(type(error)):
        stop_at_step_2(tmp_path, error)
    found = read_run_state(tmp_path)
    assert found is not None and found.has_ended
    assert found.state == ("refused" if is_refused else "failed")
    assert found.why == (str(error) or type(error).__name__)
    assert found.step == 2


@pytest.mark.parametrize(("step", "line"), [(4, "finished at step 4 of 4"), (3, "drained at")])
def test_a_run_that_ends_in_good_order_says_whether_it_is_complete(
    tmp_path: Path, step: int, line: str
) -> None:
    with run_state(tmp_path, num_steps=4) as told:
        told.ended(step=step)
    found = read_run_state(tmp_path)
    assert found is not None and found.line.startswith(line)


def test_a_start_that_was_taken_over_leaves_the_file_to_its_successor(tmp_path: Path) -> None:
    successor = RunStateFile(tmp_path, num_steps=4)
    with pytest.raises(StaleTerm):
        stop_at_step_2(
            tmp_path, StaleTerm("over"), before=lambda: successor.tell("running", step=3)
        )
    found = read_run_state(tmp_path)
    assert found is not None and found.line == "running at step 3 of 4"


def test_a_state_that_stays_is_written_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("rewardtune.run.run_state.time.monotonic", lambda: clock[0])
    told, steps = RunStateFile(tmp_path, num_steps=100), []
    for step in range(25):
        told.tell("running", step=step)
        clock[0] += 1.0
        steps.append(json.loads((tmp_path / STATE_NAME).read_text())["step"])
    assert sorted(set(steps)) == [0, 10, 20]
    told.tell("draining", step=25)
    found = read_run_state(tmp_path)
    assert found is not None and (found.state, found.step) == ("draining", 25)


def test_a_directory_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with run_state(tmp_path / "file" / "run", num_steps=1) as told:
        told.ended(step=1)
    assert read_run_state(tmp_path / "file" / "run") is None


def test_what_another_version_wrote_is_no_state(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).write_text('{"state": "running"}')
    assert read_run_state(tmp_path) is None


def test_the_process_that_wrote_it_is_known_to_live(tmp_path: Path) -> None:
    RunStateFile(tmp_path, num_steps=1).tell("running", step=0)
    found = read_run_state(tmp_path)
    assert found is not None and found.pid == os.getpid() and not found.is_dead
