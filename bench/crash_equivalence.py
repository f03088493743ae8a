"""``make crash-equivalence``: one run many ways, with processes killed, and one set of weights.

The same 30 steps (a) in one process, (b) on Ray with one sampler and one reward worker, (c) on
Ray and Redis with a sampler and a reward worker killed in mid-run, (d) with the learner killed,
(e) with Redis killed, and later wiped. Each at depth 0 and depth 1. What was killed when, and what
that cost, goes to bench/crash_equivalence.jsonl; the last line printed holds the digests of the
final weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from bench.figure import machine
from bench.redis_process import RedisProcess
from policies.policy_file import load_policy
from rewardtune.config import RunConfig
from rewardtune.config_file import parse_config
from rewardtune.driver import Driver
from rewardtune.launch import tune_on_ray
from rewardtune.local import pretrain, tune
from rewardtune.run_log import CombinedLog
from tasks.digit_files import write_digits
from tasks.digits import SceneStyle
from transport.connect import connect_queue
from transport.job_queue import JobQueue, QueueUnavailable

OUTPUT = Path(__file__).with_suffix(".jsonl")
NUM_STEPS = 30
LEASE_SECONDS = 3.0
_SILENT = CombinedLog([])


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that befalls the run once it has come so far."""

    step: int
    name: str
    strike: Callable[[Driver], None]


@dataclass(slots=True)
class Steered:
    """Watches a run from a thread and strikes when it is time, in mid-work."""

    blows: list[Blow]
    queue_url: str | None
    run_name: str
    struck: list[dict[str, Any]] = field(default_factory=list)
    status: Mapping[str, Any] = field(default_factory=dict)
    redeliveries: int = 0
    restarts: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def watch(self, driver: Driver) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(driver,), daemon=True))
        self._threads[0].start()

    def finish(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, driver: Driver) -> None:
        waiting, queue = list(self.blows), None
        while not self._over.wait(0.02):
            self.status = driver.status()
            told = self.status["queue"]
            restarts = sum(service["restarts"] for service in self.status["services"])
            self.restarts = max(self.restarts, restarts)
            self.redeliveries = max(self.redeliveries, told["redeliveries"] if told else 0)
            if not waiting or self.status["step"] < waiting[0].step:
                continue
            queue = queue or self._connect()
            if not _is_at_work(queue):
                continue
            blow = waiting.pop(0)
            self.struck.append({"what": blow.name, "step": self.status["step"]})
            blow.strike(driver)

    def _connect(self) -> JobQueue:
        url = self.queue_url or f"ray://rewardtune-{self.run_name}/queue"
        return connect_queue(url, run=self.run_name, lease_seconds=LEASE_SECONDS)


def _is_at_work(queue: JobQueue) -> bool:
    """Whether groups are being scored: a kill should hit somebody who holds some."""
    try:
        return queue.stats().leased > 1
    except QueueUnavailable:
        return False


def _kill(kind: str) -> Callable[[Driver], None]:
    def strike(driver: Driver) -> None:
        pids = [s["pid"] for s in driver.status()["services"] if s["kind"] == kind and s["pid"]]
        os.kill(pids[0], signal.SIGKILL)

    return strike


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="rt-crash-") as name:
        folder = Path(name)
        digits = folder / "digits"
        write_digits(
            digits,
            num_scenes={"train": 24, "holdout": 8, "validation": 8},
            style=SceneStyle(size=32, min_digits=1, max_digits=3),
        )
        start = pretrain(_config(folder, "pretrained", {"mode": "pretrain"}), _SILENT).policy_path
        digests: dict[str, dict[str, str]] = {}
        with _one_ray(folder):
            for depth in (0, 1):
                digests[f"depth{depth}"] = _all_ways(folder, start, depth=depth)
        other = _config(folder, "other-seed", _tuning(start, depth=0) | {"seed": 6})
        tune(other, _SILENT)
        strangers = {"initial": _digest(start), "other seed": _digest(_final(other))}
    problems = verdict(digests, strangers)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    print(json.dumps(digests))
    return 1 if problems else 0


def verdict(digests: Mapping[str, Mapping[str, str]], strangers: Mapping[str, str]) -> list[str]:
    """What is wrong with the digests; nothing, if each depth has one and all else differ."""
    problems = [
        f"{depth} ended with {len(set(found.values()))} different weights: {dict(found)}"
        for depth, found in digests.items()
        if len(set(found.values())) != 1
    ]
    ends = [next(iter(found.values())) for found in digests.values()]
    if len(set(ends)) != len(ends):
        problems.append("two depths ended with the same weights")
    problems += [f"a run ended with {name}'s weights" for name, d in strangers.items() if d in ends]
    return problems


def _all_ways(folder: Path, start: Path, *, depth: int) -> dict[str, str]:
    tuning = _tuning(start, depth=depth)
    local = _config(folder, f"a{depth}", tuning)
    tune(local, _SILENT)
    digests = {"a": _digest(_final(local))}
    _record("a", depth, local, None, seconds=0.0)

    def way(letter: str, blows: list[Blow], redis: RedisProcess | None, **cluster: int) -> None:
        changes: dict[str, Any] = {"lease_seconds": LEASE_SECONDS, "metrics_port": 0, **cluster}
        if redis is not None:
            changes["redis"] = redis.url
        config = _config(folder, f"{letter}{depth}", {**tuning, "cluster": changes})
        steered = Steered(blows, redis.url if redis else None, config.run_name)
        began = time.perf_counter()
        tune_on_ray(config, _SILENT, on_driver=steered.watch)
        steered.finish()
        digests[letter] = _digest(_final(config))
        _record(letter, depth, config, steered, seconds=time.perf_counter() - began)

    way("b", [], None, num_samplers=1, num_reward_workers=1)
    redis = RedisProcess(folder / f"redis-{depth}")
    try:
        way(
            "c",
            [
                Blow(5, "reward worker killed", _kill("reward_worker")),
                Blow(12, "sampler killed", _kill("sampler")),
            ],
            redis,
            num_samplers=2,
            num_reward_workers=3,
        )
        way(
            "d",
            [Blow(7, "learner killed", _kill("learner"))],
            None,
            num_samplers=1,
            num_reward_workers=2,
        )
        way(
            "e",
            [
                Blow(6, "Redis killed", lambda driver: redis.restart()),
                Blow(14, "Redis wiped", lambda driver: redis.wipe()),
            ],
            redis,
            num_samplers=1,
            num_reward_workers=2,
        )
    finally:
        redis.kill()
    return digests


def _record(
    letter: str, depth: int, config: RunConfig, steered: Steered | None, *, seconds: float
) -> None:
    status = steered.status if steered else {}
    line = {
        "way": letter,
        "depth": depth,
        "digest": _digest(_final(config)),
        "struck": steered.struck if steered else [],
        "restarts": steered.restarts if steered else 0,
        "redeliveries": steered.redeliveries if steered else 0,
        "redraws": status.get("redraws", 0),
        "term": status.get("term", 0),
        "seconds": round(seconds, 1),
        "machine": machine(),
    }
    with OUTPUT.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print({key: value for key, value in line.items() if key not in ("machine", "digest")})


def _tuning(start: Path, *, depth: int) -> dict[str, Any]:
    return {
        "mode": "tune",
        "depth": depth,
        "policy": {"checkpoint": str(start)},
        "sampler": {"num_samples": 4, "micro_batch": 4},
    }


def _config(folder: Path, name: str, changes: Mapping[str, Any]) -> RunConfig:
    """A detector that takes a step in the blink of an eye; rewards that differ between boxes."""
    sizes = {
        "input_size": 32,
        "patch_size": 8,
        "width": 32,
        "num_heads": 2,
        "mlp_width": 48,
        "encoder_depth": 1,
        "decoder_depth": 1,
    }
    is_tuning = changes["mode"] == "tune"
    values: dict[str, Any] = {
        "task": "bench.slow_detection" if is_tuning else "detection",
        "seed": 5,
        "task_options": {"max_boxes": 3},
        "data": {
            "train": str(folder / "digits/train"),
            "holdout": str(folder / "digits/holdout"),
        },
        "policy": sizes,
        "learner": {
            "batch_size": 8,
            "num_steps": NUM_STEPS,
            "micro_batch": 4,
            "optimizer": {"kind": "adafactor", "learning_rate": 1e-2},
            **({"estimator": "leave_one_out"} if is_tuning else {}),
        },
        "compute": {"threads": 1, "device": "cpu"},
        "operations": {
            "directory": str(folder / name),
            "checkpoint_every": 4,
            "progress": False,
        },
        **changes,
    }
    return parse_config(values, source="bench.crash_equivalence")


def _one_ray(folder: Path) -> Any:
    """For all runs: starting one takes longer than any of them."""
    for key, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_WAIT_POLICY": "passive",
        # Actors import the task from here.
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
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


def _final(config: RunConfig) -> Path:
    return config.operations.directory / "policy.safetensors"


def _digest(path: Path) -> str:
    """Of the weights alone; the file also says where they came from."""
    digest = hashlib.sha256()
    for name, parameter in sorted(load_policy(path).policy.named_parameters()):
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
