"""Whole runs on Ray that take a step in the blink of an eye, for checks of what a run survives."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from bench.figure import machine
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.launch import tune_on_ray
from rewardtune.config.config_file import parse_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import load_policy
from rewardtune.run.local import pretrain
from rewardtune.run.log import CombinedLog, RunLog
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue

SILENT = CombinedLog([])
_ROOT = Path(__file__).resolve().parent.parent


def small_start(folder: Path, *, num_steps: int) -> Path:
    """Write the scenes, and a policy that has looked at them for so many steps."""
    write_digits(
        folder / "digits",
        num_scenes={"train": 24, "holdout": 8, "validation": 8},
        style=SceneStyle(size=32, min_digits=1, max_digits=3),
    )
    config = small_config(
        folder, "pretrained", task="detection", mode="pretrain", learner={"num_steps": num_steps}
    )
    return pretrain(config, SILENT).policy_path


def small_tune(folder: Path, name: str, *, start: Path, **changes: Any) -> RunConfig:
    """As ``small_config``, of a run that tunes what ``small_start`` returned."""
    tuning = {
        "mode": "tune",
        "policy": {"checkpoint": str(start)},
        "sampler": {"num_samples": 4, "micro_batch": 4},
        "learner": {"estimator": "leave_one_out"},
    }
    return small_config(folder, name, **_merged(tuning, changes))


def small_config(folder: Path, name: str, **changes: Any) -> RunConfig:
    """A tiny detector on the scenes of ``small_start``; tables are merged one level deep.

    A key that is changed to None is left out.
    """
    values = {
        "seed": 5,
        "task_options": {"max_boxes": 3},
        "data": {"train": str(folder / "digits/train"), "holdout": str(folder / "digits/holdout")},
        "policy": {
            "input_size": 32,
            "patch_size": 8,
            "width": 32,
            "num_heads": 2,
            "mlp_width": 48,
            "encoder_depth": 1,
            "decoder_depth": 1,
        },
        "learner": {
            "batch_size": 8,
            "micro_batch": 4,
            "optimizer": {"kind": "adafactor", "learning_rate": 1e-2},
        },
        "compute": {"threads": 1, "device": "cpu"},
        "operations": {
            "directory": str(folder / name),
            "checkpoint_every": 4,
            "progress": False,
        },
    }
    return parse_config(_without_nones(_merged(values, changes)), source="bench")


def without_holdout(config: RunConfig) -> RunConfig:
    """Nothing is evaluated: one process less."""
    return config.model_copy(update={"data": config.data.model_copy(update={"holdout": None})})


def weights_of(policy: Path | Policy) -> str:
    """Hash of a policy's weights alone; its file also says where they came from."""
    digest = hashlib.sha256()
    loaded = load_policy(policy).policy if isinstance(policy, Path) else policy
    for name, parameter in sorted(loaded.named_parameters()):
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def one_ray(folder: Path) -> Any:
    """For all runs of a check: starting one takes longer than any of them."""
    for key, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_WAIT_POLICY": "passive",
        # Actors import the task from here.
        "PYTHONPATH": str(_ROOT),
    }.items():
        os.environ.setdefault(key, value)
    return ray.init(
        num_cpus=8,
        num_gpus=0,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=200_000_000,
        _temp_dir=str(folder / "ray"),
    )


@contextlib.contextmanager
def live(config: RunConfig, log: RunLog) -> Iterator[Driver]:
    """A run on Ray beside whoever watches it, which is drained in the end.

    Raises:
        Exception: what ended the run.
    """
    drivers: list[Driver] = []
    failures: list[BaseException] = []
    has_driver = threading.Event()

    def take(driver: Driver) -> None:
        drivers.append(driver)
        has_driver.set()

    def run() -> None:
        try:
            tune_on_ray(config, log, on_driver=take)
        except BaseException as failure:
            failures.append(failure)
        finally:
            has_driver.set()

    thread = threading.Thread(target=run)
    thread.start()
    has_driver.wait()
    if not drivers:
        raise failures[0]
    try:
        yield drivers[0]
    finally:
        drivers[0].drain()
        thread.join()
    if failures:
        raise failures[0]


def queue_of(config: RunConfig) -> JobQueue:
    """Another connection to the queue of a run that is live."""
    settings = config.cluster
    url = settings.queue or f"ray://rewardtune-{config.run_name}/queue"
    return connect_queue(url, run=config.run_name, lease_seconds=settings.lease_seconds)


def until(
    is_so: Callable[[], bool], *, seconds: float = 240.0, every_seconds: float = 0.05
) -> None:
    """Look again and again.

    Raises:
        TimeoutError: it was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the run did not come so far within {seconds:.0f} s")
        time.sleep(every_seconds)


def surroundings() -> dict[str, Any]:
    """What else the machine was doing: by it, a figure that is off can be understood."""
    return {"load_average": round(os.getloadavg()[0], 1), "machine": machine()}


class StepLog:
    """Keeps the records of steps, and when each came."""

    def __init__(self, on_message: Callable[[str], None] = print) -> None:
        self.steps: list[Mapping[str, float]] = []
        self.times: list[float] = []
        """Of ``time.monotonic``."""
        self._on_message = on_message

    @property
    def newest(self) -> int:
        """Number of the last step; 0 before the first."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    def step(self, record: Mapping[str, float]) -> None:
        self.times.append(time.monotonic())
        self.steps.append(record)

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None:
        self._on_message(text)

    def close(self) -> None: ...


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        is_table = isinstance(change, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **change} if is_table else change
    return merged


def _without_nones(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nones(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }
