"""``python -m tests.faults.ends``: what Ray makes of each end of a run, by rayjob.yaml's own words.

A real head with its dashboard, and jobs whose entrypoint is the one of deploy/kuberay/base, as
KubeRay submits it. The preStop of its head is run by a shell in mid-run, and SIGTERM sent to the
head in another. Prints what Ray says of each job, and what the run's directory says.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ray.job_submission import JobSubmissionClient
from rich.console import Console
from rich.table import Table

from bench.small_run import small_start
from rewardtune.run.log import LOG_NAME, read_run_log
from rewardtune.run.run_state import RunState, read_run_state
from rewardtune.run.summary import summarise
from tests.deploy.manifests import DEPLOY
from tests.faults.redis_process import RedisProcess
from tests.rewardtune.ray_head import RayHead, ray_head, shell_environment
from tests.rewardtune.small_job import small_job

PATIENCE_SECONDS = 180.0
_NUM_STEPS = 100_000


class Trial:
    """One run, submitted to the head."""

    def __init__(self, client: JobSubmissionClient, folder: Path, redis: str, config: str) -> None:
        self._client = client
        self.directory = folder / folder.name
        folder.mkdir()
        (folder / "run.toml").write_text(config)
        job = yaml.safe_load((DEPLOY / "kuberay/base/rayjob.yaml").read_text())["spec"]
        environment = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
        self.job = client.submit_job(
            entrypoint=job["entrypoint"].replace("/config/", f"{folder}/"),
            runtime_env={"env_vars": {**environment, "REWARDTUNE_REDIS": redis}},
        )
        head = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        words = head["lifecycle"]["preStop"]["exec"]["command"]
        self._pre_stop = [word.replace("/runs/digits", str(self.directory)) for word in words]

    def wait_for_step(self, step: int) -> None:
        log = self.directory / LOG_NAME
        until(lambda: log.exists() and len(read_run_log(log).steps) >= step)

    def drain(self) -> None:
        words = [sys.executable, "-m", "rewardtune", "drain", str(self.directory), "--wait"]
        subprocess.run(words, env=shell_environment(), check=True)

    def pre_stop(self) -> None:
        subprocess.run(self._pre_stop, env=shell_environment(), check=True)

    def end(self) -> str:
        """What Ray says."""
        until(lambda: self._client.get_job_status(self.job).is_terminal())
        details = self._client.get_job_info(self.job)
        return f"{details.status.value}, exit {details.driver_exit_code}"

    def told(self) -> RunState:
        """What its directory says, once it says that it ended."""
        until(lambda: (told := read_run_state(self.directory)) is not None and told.has_ended)
        told = read_run_state(self.directory)
        assert told is not None
        return told


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing for {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.1)


def run_all(folder: Path, head: RayHead, redis: str) -> Table:
    client = _client(head)
    start = small_start(folder, num_steps=5)

    def trial(name: str, *, num_steps: int = _NUM_STEPS, **changes: Any) -> Trial:
        place = folder / name.replace(" ", "-")
        text = small_job(
            folder / "digits", start, num_steps=num_steps, directory=place / place.name
        )
        for was, is_now in changes.items():
            text = text.replace(was, is_now)
        return Trial(client, place, redis, text)

    table = Table("what happens", "Ray", "RUN/state.json", "last step", "checkpoint")

    def add(name: str, ended: Trial, ray: str) -> None:
        told = ended.told()
        log, step = ended.directory / LOG_NAME, "-"
        last = str(len(read_run_log(log).steps)) if log.exists() else "-"
        if (ended.directory / "config.json").exists():
            step = str(summarise(ended.directory).checkpoint_step)
        table.add_row(name, ray, told.line, last, step)

    finished = trial("finished", num_steps=5)
    add("the last step is taken", finished, finished.end())
    drained = trial("drained")
    drained.wait_for_step(5)
    drained.drain()
    add("rewardtune drain", drained, drained.end())
    refused = trial("refused", estimator="estimatr")
    add("an unknown key", refused, refused.end())
    evicted = trial("evicted")
    evicted.wait_for_step(5)
    evicted.pre_stop()
    add("preStop of the head", evicted, evicted.end())
    terminated = trial("terminated")
    terminated.wait_for_step(5)
    head.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    terminated.told()
    add(f"SIGTERM to the head, {time.monotonic() - began:.1f} s", terminated, "gone")
    return table


def _client(head: RayHead) -> JobSubmissionClient:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{head.dashboard}/api/version", timeout=5):
                return True
        except OSError:
            return False

    until(answers)
    return JobSubmissionClient(head.dashboard)


def main() -> int:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="rewardtune-ends-") as name:
        folder = Path(name)
        redis = RedisProcess(folder / "redis")
        try:
            with ray_head(has_dashboard=True) as head:
                Console(width=160).print(run_all(folder, head, redis.url))
        finally:
            redis.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
