"""The tuned detectors of table 2 on scenes drawn afresh: ``python -m studies.fresh_scenes``.

500 scenes of the validation digits for each of some seeds, as ``make demo SCENES_SEED=n`` draws
them; the validation scenes of all records are one such draw. Needs the runs of ``python -m
studies.table2 --rows map``. Writes evidence/studies/fresh_scenes.jsonl, one object per policy and
draw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import EVIDENCE
from rewardtune.config.config_file import load_config
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.demo.table import DEMOS
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.policies.policy_file import load_policy
from rewardtune.run.machine import machine
from rewardtune.tasks.task import load_task

CONFIG = Path("configs/digits_detection_map.toml")
OUTPUT = EVIDENCE / "studies" / "fresh_scenes.jsonl"
START = "likelihood"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.fresh_scenes", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="scenes of seeds 1, 2, ...")
    parser.add_argument("--tuned", type=Path, nargs="*", help="default: runs/table2/map-*")
    told = parser.parse_args(arguments)
    tuned = told.tuned or sorted(Path("runs/table2").glob("map-*/best.safetensors"))
    config = load_config(CONFIG)
    assert config.policy.checkpoint is not None
    policies = {START: config.policy.checkpoint, **{str(path): path for path in tuned}}
    rows = []
    for seed in range(1, told.seeds + 1):
        for name, path in policies.items():
            rows.append({"policy": name, "scenes_seed": seed, **measured(path, seed)})
            print(json.dumps(rows[-1]), flush=True)
    OUTPUT.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    print(summary(rows))


def measured(path: Path, scenes_seed: int) -> dict[str, Any]:
    """One policy on one draw of scenes, by its best score rule as ``make demo`` does."""
    config, demo = load_config(CONFIG), DEMOS["detection"]
    folder = config.data.train.parent.with_name(f"digits-seed-{scenes_seed}")
    write_digits(
        folder,
        num_scenes={"validation": demo.num_scenes["validation"]},
        seed=scenes_seed,
        style=demo.style,
        annotations=demo.annotations,
    )
    scenes = open_dataset(folder / "validation")
    categories = open_dataset(config.data.train).categories
    task = load_task(config.task, config.task_options, categories=categories)
    evaluation = evaluate_policy(
        load_policy(path).policy,
        task,
        scenes,
        indices=range(len(scenes)),
        score_rules=task.score_rules,
    )
    by_rule = evaluation.metrics_by_rule
    best = max(by_rule, key=lambda rule: by_rule[rule]["map"])
    figures = {name: round(by_rule[best][name], 4) for name in ("map", "ar100", "reward")}
    return {"num_scenes": len(scenes), "score_rule": best, **figures, "machine": machine()}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Means over all draws, before and after, and the gains of single draws."""
    lines = []
    for figure in ("map", "ar100", "reward"):
        before = {row["scenes_seed"]: row[figure] for row in rows if row["policy"] == START}
        after = [(row["scenes_seed"], row[figure]) for row in rows if row["policy"] != START]
        if not after:
            continue
        gains = np.array([value / before[seed] - 1 for seed, value in after])
        mean = float(np.mean([value for _, value in after]))
        lines.append(
            f"{figure}: {np.mean(list(before.values())):.4f} -> {mean:.4f}, gains of single draws "
            f"{gains.min():+.1%} to {gains.max():+.1%}, mean {gains.mean():+.1%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
