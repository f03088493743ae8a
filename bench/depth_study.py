"""What staleness costs the embedded detection run: ``python -m bench.depth_study``.

The demo's run at depth 0, 1 and 2, with and without the importance weight, some seeds each, in
one process: the depth decides the weights to the byte, not who draws. Depth 1 stays the default
only while its mean lies within one standard error of depth 0. One JSON object per run goes to
bench/depth_study.jsonl; runs that stand there are not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.figure import machine
from rewardtune.config_file import load_config
from rewardtune.local import tune
from rewardtune.run_log import open_run_log

CONFIG = Path("configs/digits_detection_map.toml")
OUTPUT = Path("bench/depth_study.jsonl")
NUM_STEPS = 100
NUM_LAST_STEPS = 20
"""Steps at the end of a run whose sampled reward is averaged."""
FIGURES = ("sampled_reward", "greedy_reward", "map", "ar100")


@dataclass(frozen=True, slots=True)
class Setting:
    depth: int
    importance_weight: bool

    @property
    def name(self) -> str:
        return f"depth {self.depth}, {'with' if self.importance_weight else 'without'} weight"


SETTINGS = (
    # On-policy rollouts weigh 1: with and without are one run.
    Setting(0, False),
    Setting(1, False),
    Setting(1, True),
    Setting(2, False),
    Setting(2, True),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each setting")
    options = parser.parse_args(arguments)
    done = {(r["depth"], r["importance_weight"], r["seed"]) for r in _read()}
    for seed in range(options.seeds):
        for setting in SETTINGS:
            if (setting.depth, setting.importance_weight, seed) not in done:
                _append(run(setting, seed))
    # Into a file the table is as wide as it needs; 80 columns would break its cells.
    Console(width=None if sys.stdout.isatty() else 120).print(table(_read()))


def run(setting: Setting, seed: int) -> dict[str, Any]:
    """Tune with one setting and one seed, and measure the last policy on the holdout scenes."""
    name = f"depth{setting.depth}{'_weight' if setting.importance_weight else ''}-{seed}"
    directory = Path(f"runs/depth_study/{name}")
    config = load_config(
        CONFIG,
        (
            f"depth={setting.depth}",
            f"importance_weight={str(setting.importance_weight).lower()}",
            f"seed={seed}",
            f"learner.num_steps={NUM_STEPS}",
            f"evaluation.every_steps={NUM_STEPS}",
            f"operations.directory={directory}",
        ),
    )
    started = time.monotonic()
    with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
        tune(config, log)
    # The file holds what every start of the run wrote; the last line of a step is what counts.
    records = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    steps = {r["step"]: r for r in records if r["kind"] == "step"}
    last = [steps[step]["reward"] for step in range(NUM_STEPS - NUM_LAST_STEPS + 1, NUM_STEPS + 1)]
    holdout = [r for r in records if r["kind"] == "evaluation" and r["step"] == NUM_STEPS][-1]
    return {
        "depth": setting.depth,
        "importance_weight": setting.importance_weight,
        "seed": seed,
        "steps": NUM_STEPS,
        "sampled_reward": float(np.mean(last)),
        "greedy_reward": holdout["reward"],
        "map": holdout["map"],
        "ar100": holdout["ar100"],
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
    }


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Mean and standard error over seeds of each setting."""
    shown = Table(title=f"digit scenes, holdout, after {NUM_STEPS} steps")
    for heading in ("setting", "seeds", *FIGURES):
        shown.add_column(heading)
    for setting in SETTINGS:
        runs = [
            r
            for r in records
            if (r["depth"], r["importance_weight"]) == (setting.depth, setting.importance_weight)
        ]
        if runs:
            cells = [mean_and_error([r[figure] for r in runs]) for figure in FIGURES]
            shown.add_row(setting.name, str(len(runs)), *cells)
    return shown


def mean_and_error(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.4f}"


def _read() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OUTPUT.read_text().splitlines()] if OUTPUT.exists() else []


def _append(record: Mapping[str, Any]) -> None:
    with OUTPUT.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
