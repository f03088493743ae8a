"""Sweeps and records of runs that nobody made, for tests of what is read off them."""

from __future__ import annotations

from pathlib import Path

from rewardtune.sweep.config import Sweep, load_sweep
from rewardtune.sweep.plan import Run
from rewardtune.sweep.record import Record

BASE = """
task = "detection"
mode = "tune"
task_options = { max_boxes = 3 }
data = { train = "digits/train", holdout = "digits/holdout", validation = "digits/validation" }
policy = { checkpoint = "mle/policy.safetensors" }
sampler = { num_samples = 4, micro_batch = 8 }

[learner]
batch_size = 8
micro_batch = 8
num_steps = 3
optimizer = { kind = "adamw", learning_rate = 1e-3 }
"""
GROUPS = """
num_seeds = 2
[rows.equal_steps]
one = ["sampler.num_samples=2"]
three = ["sampler.num_samples=4"]
[rows.equal_samples]
one = ["sampler.num_samples=2", "learner.num_steps=6"]
three = ["sampler.num_samples=4"]
[until]
pairs = [["equal_steps/one", "equal_samples/three"]]
max_num_seeds = 4
"""


def load(folder: Path, text: str, *, base: str = BASE) -> Sweep:
    """The sweep runs/trial of two metrics over the base config."""
    (folder / "base.toml").write_text(base)
    path = folder / "trial.toml"
    path.write_text(f'config = "{folder / "base.toml"}"\nmetrics = ["map", "ar100"]\n{text}')
    return load_sweep(path)


def record(sweep: Sweep, row: str, seed: int, value: float) -> Record:
    """A finished run whose mAP rose from 0 to ``value``."""
    config = sweep.run_config(row, seed)
    learner, per_step = config.learner, config.learner.batch_size * config.sampler.num_samples
    return Record(
        row=row,
        seed=seed,
        before={"map": 0.0, "ar100": 0.5},
        after={"map": value, "ar100": 1 - value},
        evaluations=[
            {"step": step, "map": value * step / learner.num_steps}
            for step in (0, learner.num_steps // 2, learner.num_steps)
        ],
        num_steps=learner.num_steps,
        num_samples=per_step * learner.num_steps,
        samples_per_step=per_step,
        seconds=12.5,
        machine="a machine",
        key=sweep.key(row, seed),
        start="start",
    )


def records(sweep: Sweep, values: dict[str, list[float]]) -> dict[Run, Record]:
    made = [record(sweep, row, seed, v) for row in values for seed, v in enumerate(values[row])]
    return {each.run: each for each in made}
