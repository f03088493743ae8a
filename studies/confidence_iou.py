"""Whether a box's confidence says how well it fits: ``python -m studies.confidence_iou``.

The boxes of the shipped detector and of a tuned one (the demo's, unless ``--tuned`` names another)
on the validation scenes: confidence, by score rule, against the overlap with the best annotated box
of the same class, 0 for a box that finds one again. Writes evidence/studies/confidence_iou.jsonl
and docs/detection_confidence.png.

Axes: N boxes, M annotated boxes, B bins.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pycocotools.mask import iou as box_iou

from bench.figure import EVIDENCE
from rewardtune.config.config_file import load_config
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.policies.policy_file import load_policy
from rewardtune.run.machine import machine
from rewardtune.tasks.detection.definition import CORRECT_THRESHOLD
from rewardtune.tasks.task import load_task

CONFIG = Path("configs/digits_detection_map.toml")
TUNED = Path("runs/demo_detection/run/best.safetensors")
RULES = ("class", "p2", "class_p2")
OUTPUT = EVIDENCE / "studies" / "confidence_iou.jsonl"
PICTURE = Path("docs/detection_confidence.png")
NUM_BINS = 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.confidence_iou", description=__doc__)
    parser.add_argument("--tuned", type=Path, default=TUNED)
    tuned: Path = parser.parse_args(arguments).tuned
    config = load_config(CONFIG)
    assert config.policy.checkpoint is not None
    assert config.data.validation is not None
    scenes = open_dataset(config.data.validation)
    categories = open_dataset(config.data.train).categories
    task = load_task(config.task, config.task_options, categories=categories)
    rows: list[dict[str, Any]] = []
    for name, path in (("likelihood", config.policy.checkpoint), ("tuned", tuned)):
        evaluation = evaluate_policy(
            load_policy(path).policy, task, scenes, indices=range(len(scenes)), score_rules=RULES
        )
        for rule, results in evaluation.results.items():
            found = against_overlap(
                np.array([record["score"] for record in results]), best_overlaps(results, scenes)
            )
            rows.append({"policy": name, "score_rule": rule, **found, "machine": machine()})
            print(json.dumps(rows[-1]), flush=True)
    OUTPUT.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    draw(rows).savefig(PICTURE, dpi=110)


def best_overlaps(results: Sequence[Mapping[str, Any]], scenes: Dataset) -> NDArray[np.float64]:
    """Of each box [N] the overlap with the annotated box of its image and class that fits best.

    0 where an earlier box of the results found that one, which is what a confidence should say:
    to mAP a duplicate is wrong.
    """
    annotated: dict[tuple[int, int], list[NDArray[np.float64]]] = defaultdict(list)
    for index in range(len(scenes)):
        example = scenes.example(index)
        for category, xywh_4 in zip(example.category_N, example.xywh_N4, strict=True):
            annotated[example.image_id, scenes.categories[category].id].append(xywh_4)
    best = []
    found: set[tuple[int, int, int]] = set()
    for record in results:
        place = (record["image_id"], record["category_id"])
        others = annotated.get(place)
        if not others:
            best.append(0.0)
            continue
        overlap_M = box_iou(np.array([record["bbox"]]), np.array(others), [0] * len(others))[0]
        chosen = (*place, int(overlap_M.argmax()))
        best.append(0.0 if chosen in found else float(overlap_M.max()))
        if overlap_M.max() > CORRECT_THRESHOLD:
            found.add(chosen)
    return np.array(best)


def against_overlap(
    confidence_N: NDArray[np.float64], overlap_N: NDArray[np.float64]
) -> dict[str, Any]:
    """How confidences go with overlaps.

    Returns:
        num_boxes; correlation (Pearson's); error: how far the mean overlap of boxes of like
        confidence is from it, averaged over boxes; bins: [boxes, mean confidence, mean overlap]
        of each of ten equal ranges of confidence that has boxes.
    """
    bin_N = np.minimum((confidence_N * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = [
        (
            int(inside_N.sum()),
            float(confidence_N[inside_N].mean()),
            float(overlap_N[inside_N].mean()),
        )
        for inside_N in (bin_N == b for b in range(NUM_BINS))
        if inside_N.any()
    ]
    error = sum(count * abs(confidence - fit) for count, confidence, fit in bins)
    return {
        "num_boxes": len(confidence_N),
        "correlation": round(float(np.corrcoef(confidence_N, overlap_N)[0, 1]), 4),
        "error": round(error / len(confidence_N), 4),
        "bins": [[count, round(c, 3), round(fit, 3)] for count, c, fit in bins],
    }


def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean overlap over confidence, a picture for each policy."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    for axes, policy in zip(figure.subplots(1, len(policies), sharey=True), policies, strict=True):
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for row in (row for row in rows if row["policy"] == policy):
            _, confidence, fit = zip(*row["bins"], strict=True)
            label = f"{row['score_rule']} (r = {row['correlation']:.2f})"
            axes.plot(confidence, fit, marker="o", markersize=3, label=label)
        axes.set(title=policy, xlabel="confidence", xlim=(0, 1), ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.axes[0].set_ylabel("mean overlap, 0 for repeats")
    return figure


if __name__ == "__main__":
    main()
