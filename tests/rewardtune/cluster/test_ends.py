"""How a run ends, by the entrypoint that rayjob.yaml has: exit code, RUN/state.json, checkpoint.

The command is read from the file and run by a shell, with real processes. Where it says
``--address auto`` a test that needs no cluster puts ``--local``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from rewardtune.run.log import LOG_NAME
from rewardtune.run.run_state import RunState, read_run_state
from rewardtune.run.summary import summarise
from tests.deploy.manifests import DEPLOY
from tests.faults.redis_process import RedisProcess
from tests.rewardtune.ray_head import ray_head, shell_environment
from tests.rewardtune.small_job import small_job

PATIENCE_SECONDS = 90.0
"""Longer than any busy machine needs."""


class Job:
    """The entrypoint as Ray runs it: a shell of its own."""

    def __init__(self, folder: Path, *, is_local: bool, environment: dict[str, str]) -> None:
        document = yaml.safe_load((DEPLOY / "kuberay/base/rayjob.yaml").read_text())
        command = document["spec"]["entrypoint"].replace("/config/", f"{folder}/")
        if is_local:
            command = command.replace("--address auto", "--local")
        self._log = folder / "job.log"
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**shell_environment(), **environment},
            )

    def terminate(self) -> None:
        """As Ray stops a job: the shell and everything below it."""
        os.killpg(self.process.pid, signal.SIGTERM)

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def folder(data: Path, pretrained: Path, tmp_path: Path) -> Path:
    write_config(tmp_path, data, pretrained, num_steps=3)
    return tmp_path


def write_config(folder: Path, data: Path, policy: Path, *, num_steps: int) -> None:
    (folder / "run.toml").write_text(
        small_job(data, policy, num_steps=num_steps, directory=folder / "run")
    )


def end_of(folder: Path, job: Job) -> tuple[int, RunState]:
    code = job.process.wait(timeout=PATIENCE_SECONDS)
    told = read_run_state(folder / "run")
    assert told is not None, job.log
    return code, told


def local_job(folder: Path) -> Job:
    return Job(folder, is_local=True, environment={"REWARDTUNE_REDIS": "redis://nobody:1"})


def test_a_run_is_drained_by_a_signal_and_finished_by_the_same_command(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    write_config(tmp_path, data, pretrained, num_steps=150)
    job = local_job(tmp_path)
    wait_until(lambda: num_logged(tmp_path / "run") >= 2, job)
    job.terminate()
    code, told = end_of(tmp_path, job)
    assert (code, told.state) == (0, "drained"), job.log
    assert summarise(tmp_path / "run").checkpoint_step == told.step == num_logged(tmp_path / "run")
    assert f"drained; the same command continues {tmp_path / 'run'}" in job.log
    job = local_job(tmp_path)
    code, told = end_of(tmp_path, job)
    assert (code, told.line) == (0, "finished at step 150 of 150"), job.log


@pytest.mark.parametrize(
    ("damage", "exit_code", "line"),
    [
        (lambda text: text.replace("[learner]", "[learnr]"), 0, "refused: .*unknown key learnr"),
        (lambda text: text.replace("/train", "/none"), 0, "refused: .*none.* does not exist"),
        (lambda text: text.replace('"detection"', '"breaks"'), 1, "failed at step 0 of 3: no GPU"),
        (lambda text: "task =", 2, ""),
    ],
    ids=["unknown key", "no such data", "broken machine", "no TOML"],
)
def test_what_cannot_be_run_is_refused_and_what_may_pass_fails(
    folder: Path, damage: Callable[[str], str], exit_code: int, line: str
) -> None:
    """A file that is no TOML names no directory to tell it in: only then is a refusal not 0."""
    (folder / "breaks.py").write_text("raise RuntimeError('no GPU')\n")
    config = folder / "run.toml"
    config.write_text(damage(config.read_text()))
    job = local_job(folder)
    assert job.process.wait(timeout=PATIENCE_SECONDS) == exit_code, job.log
    told = read_run_state(folder / "run")
    assert re.match(line, "" if told is None else told.line), told
    assert (told is None) == (line == "")
    assert "error: " in job.log


@pytest.mark.alone
def test_a_node_that_is_taken_away_costs_no_step_and_the_run_is_to_be_started_again(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    redis = RedisProcess(tmp_path / "redis")
    write_config(tmp_path, data, pretrained, num_steps=100_000)
    try:
        with ray_head() as head:
            environment = {"RAY_ADDRESS": head.address, "REWARDTUNE_REDIS": redis.url}
            job = Job(tmp_path, is_local=False, environment=environment)
            wait_until(lambda: num_logged(tmp_path / "run") >= 5, job)
            head.process.send_signal(signal.SIGTERM)  # as kubelet does, without any preStop
            code, told = end_of(tmp_path, job)
    finally:
        redis.kill()
    assert (code, told.state) == (1, "failed"), job.log
    assert told.why.startswith(f"its machine goes away: stopped at step {told.step} of 100000")
    assert summarise(tmp_path / "run").checkpoint_step == told.step == num_logged(tmp_path / "run")


def num_logged(directory: Path) -> int:
    """Steps in the run's log."""
    log = directory / LOG_NAME
    return log.read_text().count('"kind": "step"') if log.exists() else 0


def wait_until(is_so: Callable[[], bool], job: Job) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline and job.process.poll() is None, job.log
        time.sleep(0.05)
