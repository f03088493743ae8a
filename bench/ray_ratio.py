"""``python -m bench.ray_ratio``: the demo's steps through Ray, against those in one process.

The demo's config on its scenes, a few steps each: through Ray as it is (a sampler, a learner and
two reward workers, each on one thread), and in one process on one thread and on two. The clock
runs from the end of the first step on: starting Ray and its services is left out, and so are
evaluations, which a cluster has beside the steps and one process between them. Ways take turns,
and the median of each counts. A line goes to evidence/bench/ray_ratio.jsonl; the exit code is 1 if
Ray takes longer than the limit says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.figure import EVIDENCE
from bench.small_run import StepLog, one_ray, surroundings, without_holdout
from rewardtune.cluster.launch import tune_on_ray
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.run.local import tune
from rewardtune.run.log import RunLog
from rewardtune.run.result import RunResult

OUTPUT = EVIDENCE / "bench" / "ray_ratio.jsonl"
CONFIG = Path("configs/digits_detection_map.toml")
NUM_STEPS = 20
MAX_RATIO = 1.3


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ray_ratio", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="of all ways, in turns")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="rt-ratio-") as name:
        folder = Path(name)
        write_digits(folder / "digits", num_scenes={"train": 1000, "holdout": 8})
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        with one_ray(folder):
            for number in range(told.rounds):
                for way, (run, threads) in WAYS.items():
                    config = _config(folder, f"{way}-{number}", threads=threads)
                    seconds[way].append(step_seconds(config, run))
                    print(f"{way}: {seconds[way][-1]:.2f} s per step")
    line = record(seconds)
    OUTPUT.write_text(json.dumps(line) + "\n")
    _print(line)
    return 1 if line["ratio"] > MAX_RATIO else 0


WAYS: Mapping[str, tuple[Callable[[RunConfig, RunLog], RunResult], int]] = {
    "ray": (tune_on_ray, 1),
    "one process, 1 thread": (tune, 1),
    "one process, 2 threads": (tune, 2),
}
"""How to run, and threads of each process."""


def step_seconds(config: RunConfig, run: Callable[[RunConfig, RunLog], RunResult]) -> float:
    """Of the steps after the first, by the clock."""
    log = StepLog()
    run(config, log)
    return (log.times[-1] - log.times[0]) / (len(log.times) - 1)


def record(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, and Ray's against the faster way in one process."""
    median = {way: statistics.median(taken) for way, taken in seconds.items()}
    alone = min(taken for way, taken in median.items() if way != "ray")
    return {
        "name": "demo.ray_ratio",
        "ratio": round(median["ray"] / alone, 3),
        "step_seconds": {way: round(taken, 3) for way, taken in median.items()},
        "num_steps": NUM_STEPS,
        **surroundings(),
    }


def _config(folder: Path, name: str, *, threads: int) -> RunConfig:
    changes = {
        "data.train": f'"{folder / "digits/train"}"',
        "learner.num_steps": str(NUM_STEPS),
        "learner.schedule.warmup": "2",
        "compute.threads": str(threads),
        "cluster.metrics_port": "0",
        "operations.directory": f'"{folder / name.replace(", ", "-").replace(" ", "-")}"',
        "operations.checkpoint_every": "1000",
        "operations.progress": "false",
    }
    return without_holdout(
        load_config(CONFIG, [f"{key}={value}" for key, value in changes.items()])
    )


def _print(line: Mapping[str, Any]) -> None:
    table = Table(title=f"Ray takes {line['ratio']:.2f}x, {MAX_RATIO}x is the limit")
    for column in ("way", "seconds per step"):
        table.add_column(column)
    for way, taken in line["step_seconds"].items():
        table.add_row(way, f"{taken:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
