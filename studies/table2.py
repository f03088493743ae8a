"""The paper's table 2 and its controls on digit scenes: ``python -m studies.table2``.

Every row starts from the shipped detector, sees as many images as "map" does, and is measured on
the validation scenes with the policy that was best on the holdout scenes: by mAP, but the recall
run by AR@100 and the one without confidences by reward, since their mAP falls. One JSON object per
run goes to evidence/studies/table2.jsonl; runs that stand there are not repeated.
Scenes: ``rewardtune data digits data/digits``, for the rows "new_scenes" also ``rewardtune data
digits data/digits_new --first-scene 20000``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.figure import machine
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.policies.draw import GREEDY, Decoding
from rewardtune.policies.policy_file import load_policy
from rewardtune.tasks.detection.suppression import suppress_duplicates
from rewardtune.tasks.task import Task, load_task
from studies.finished_run import finished_run

OUTPUT = Path("evidence/studies/table2.jsonl")
START = "mle"
_DUPLICATE_IOU = 0.7
"""From which overlap on a duplicate is dropped: what the holdout set chose for the start."""
_NEW_SCENES = "data.train=data/digits_new/train"
_FIGURES = ("map", "ar100", "boxes_per_image", "reward")


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    config: str
    overrides: tuple[str, ...] = ()
    score_rules: tuple[str, ...] = ("class", "p2", "p2_norm", "class_p2")


ROWS = (
    Row("map", "configs/digits_detection_map.toml"),
    Row("recall", "configs/digits_detection_recall.toml"),
    Row("algorithm_2", "configs/digits_detection_algorithm_2.toml"),
    Row("mle_continued", "configs/digits_detection_mle_continued.toml"),
    # On pictures that pretraining has not seen, which likelihood learns from too.
    Row("map_new_scenes", "configs/digits_detection_map.toml", (_NEW_SCENES,)),
    Row("mle_continued_new_scenes", "configs/digits_detection_mle_continued.toml", (_NEW_SCENES,)),
    Row("confidence_only", "configs/digits_detection_map.toml", ("learner.reward_weight=0.0",)),
    Row(
        "without_confidence",
        "configs/digits_detection_map.toml",
        (
            "task_options.confidence_weight=0.0",
            # The readout's higher rate is for the loss that is left out.
            "learner.optimizer.learning_rate_multipliers=[]",
            "evaluation.score_rule=class",
            # Without confidences mAP falls, and the holdout set would choose the start.
            "evaluation.metric=reward",
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... of each row")
    parser.add_argument("--rows", nargs="*", help="only these rows, without the start")
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    done = {(r["row"], r["seed"]) for r in _read()}
    if not options.rows and (START, 0) not in done:
        _append(measure_start())
    for seed in range(options.seeds):
        for row in rows:
            if (row.name, seed) not in done:
                _append(run(row, seed))
    Console().print(table(_read()))


def run(row: Row, seed: int) -> dict[str, Any]:
    """Train one row with one seed and measure it."""
    directory = Path(f"runs/table2/{row.name}-{seed}")
    overrides = (*row.overrides, f"seed={seed}", f"operations.directory={directory}")
    config = load_config(Path(row.config), overrides)
    result = finished_run(config)
    return {
        "row": row.name,
        "seed": seed,
        "steps": config.learner.num_steps,
        "images": config.learner.num_steps * config.learner.batch_size,
        **_measure(config, result.policy_path, row.score_rules),
    }


def measure_start() -> dict[str, Any]:
    """The pretrained detector by its best score rule, decoding and suppression (control d)."""
    config = load_config(Path("configs/digits_detection_map.toml"))
    assert config.policy.checkpoint is not None
    measured = _measure(config, config.policy.checkpoint, ("class", "p2", "p2_norm", "class_p2"))
    decodings = {"greedy": GREEDY} | {
        f"t={t}, top_p={p}": Decoding(temperature=t, top_p=p)
        for t in (0.3, 0.6, 1.0)
        for p in (0.5, 0.8, 0.95)
    }
    ious = (None, 0.5, 0.7, 0.9)
    drawn = {name: _drawn(config, "holdout", decoding) for name, decoding in decodings.items()}
    holdout = {
        (name, iou): _suppressed(config, "holdout", results, iou)["map"]
        for name, results in drawn.items()
        for iou in ious
    }
    name, iou = max(holdout, key=lambda key: holdout[key])
    results = _drawn(config, "validation", decodings[name])
    tried = _suppressed(config, "validation", results, iou)
    return {
        "row": START,
        "seed": 0,
        "steps": 0,
        "images": 0,
        **measured,
        "best_decoding": {"decoding": name, "nms_iou": iou, "holdout_map": holdout[name, iou]},
        "best_decoding_map": tried["map"],
        "best_decoding_ar100": tried["ar100"],
    }


_Results: TypeAlias = Sequence[Mapping[str, Any]]


def _drawn(config: RunConfig, split: str, decoding: Decoding) -> _Results:
    assert config.policy.checkpoint is not None
    dataset = open_dataset(getattr(config.data, split))
    evaluation = evaluate_policy(
        load_policy(config.policy.checkpoint).policy,
        _task(config),
        dataset,
        indices=range(len(dataset)),
        score_rules=("class",),
        decoding=decoding,
    )
    return evaluation.results["class"]


def _suppressed(
    config: RunConfig, split: str, results: _Results, iou: float | None
) -> Mapping[str, float]:
    dataset = open_dataset(getattr(config.data, split))
    kept = results if iou is None else suppress_duplicates(results, iou_threshold=iou)
    return _task(config).evaluate(kept, dataset, indices=range(len(dataset)))


def _task(config: RunConfig) -> Task:
    categories = open_dataset(config.data.train).categories
    # Rewards are those of the mAP reward whatever a row was trained on, so that they compare.
    options = {"max_boxes": config.task_options["max_boxes"]}
    return load_task(config.task, options, categories=categories)


def _measure(config: RunConfig, path: Path, score_rules: Sequence[str]) -> dict[str, Any]:
    assert config.data.validation is not None
    validation = open_dataset(config.data.validation)
    evaluation = evaluate_policy(
        load_policy(path).policy,
        _task(config),
        validation,
        indices=range(len(validation)),
        score_rules=score_rules,
    )
    by_rule = evaluation.metrics_by_rule
    best = max(by_rule, key=lambda rule: by_rule[rule]["map"])
    results = evaluation.results[best]
    return {
        "score_rule": best,
        **{name: by_rule[best][name] for name in _FIGURES},
        "map_by_rule": {rule: metrics["map"] for rule, metrics in by_rule.items()},
        "map_without_repeats": _suppressed(config, "validation", results, _DUPLICATE_IOU)["map"],
        "machine": machine(),
    }


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Mean and standard error over seeds, row by row."""
    shown = Table(title="digit scenes, validation")
    for heading in ("row", "seeds", *_FIGURES, "score rule"):
        shown.add_column(heading)
    for name in dict.fromkeys(record["row"] for record in records):
        runs = [record for record in records if record["row"] == name]
        cells = []
        for figure in _FIGURES:
            values = np.array([r[figure] for r in runs])
            error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            cells.append(f"{values.mean():.4f} ± {error:.4f}")
        rules = ", ".join(sorted({r["score_rule"] for r in runs}))
        shown.add_row(name, str(len(runs)), *cells, rules)
    return shown


def _read() -> list[dict[str, Any]]:
    return list(_lines(OUTPUT)) if OUTPUT.exists() else []


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


def _append(record: Mapping[str, Any]) -> None:
    with OUTPUT.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
