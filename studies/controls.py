"""Whether tuning's gain is REINFORCE's own: tuned, and what else one could do.

``python -m studies.controls TASK`` (captioning, panoptic, colorization) makes every run not there
yet under ``runs/TASK_controls`` (three seeds each, half an hour or more on one core), measures all
on the validation scenes and writes ``evidence/studies/TASK_controls.jsonl``. Decoding is chosen on
the holdout scenes. Needs the scenes that ``make demo-TASK`` writes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.figure import EVIDENCE
from rewardtune.config.config_file import load_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.demo.table import DEMOS
from rewardtune.evaluation.evaluate import evaluate_policy
from rewardtune.evaluation.predict import policy_of_run
from rewardtune.policies.draw import GREEDY, Decoding
from rewardtune.run.machine import machine
from rewardtune.tasks.task import Task
from studies.ceiling import labels_through_stage_one, pictures_themselves
from studies.finished_run import finished_run

FOLDER = EVIDENCE / "studies"
SEEDS = (0, 1, 2)
DECODINGS = {
    **{f"temperature {t}": Decoding(temperature=t) for t in (0.25, 0.5, 0.75, 1.0)},
    **{f"top-p {p}": Decoding(top_p=p) for p in (0.5, 0.8, 0.9, 0.95)},
}


@dataclass(frozen=True, slots=True)
class Study:
    continued: Path
    """Likelihood from the same policy, over as many images and steps as tuning."""
    tuned: Mapping[str, Sequence[str]]
    """Rows of tuning, and how each differs from the demo's config."""
    ceilings: Mapping[str, Callable[[Task, Dataset], Mapping[str, float]]] = field(
        default_factory=dict
    )
    """Rows of what stands in a policy's place."""


STUDIES = {
    "captioning": Study(
        continued=Path("configs/digits_captioning_mle_continued.toml"),
        tuned={
            "tuned, ends scored": (),
            "tuned, ends not scored": (
                "task_options.scores_end=false",
                "task_options.document_frequencies=data/digits_captions/frequencies.arrow",
            ),
        },
    ),
    "panoptic": Study(
        continued=Path("configs/digits_panoptic_mle_continued.toml"),
        tuned={"tuned": ()},
        ceilings={"labels through stage I": labels_through_stage_one},
    ),
    "colorization": Study(
        continued=Path("configs/digits_colorization_mle_continued.toml"),
        tuned={"tuned": ()},
        ceilings={
            "the pictures themselves": pictures_themselves,
            "pictures through stage I": labels_through_stage_one,
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m studies.controls", description=__doc__)
    parser.add_argument("task", choices=STUDIES)
    task: str = parser.parse_args(arguments).task
    study, path = STUDIES[task], DEMOS[task].config
    main_metric = next(iter(DEMOS[task].figures.values()))
    config = load_config(path)
    start = config.policy.checkpoint
    assert start is not None and config.data.holdout and config.data.validation
    rows: list[dict[str, object]] = []

    def add(row: str, policies: Sequence[Path], decoding: Decoding = GREEDY) -> None:
        found = [
            measured(config, policy, config.data.validation, decoding, seed=seed)
            for seed, policy in enumerate(policies)
        ]
        rows.append({"row": row, **means(found), "seeds": len(found)})
        print(json.dumps(rows[-1]), flush=True)

    scenes = open_dataset(config.data.validation)
    task_of_start = policy_of_run(config, start).task
    for name, ceiling in study.ceilings.items():
        rows.append({"row": name, **means([ceiling(task_of_start, scenes)]), "seeds": 1})
        print(json.dumps(rows[-1]), flush=True)
    add("likelihood", [start])
    scores = {
        name: measured(config, start, config.data.holdout, decoding)[main_metric]
        for name, decoding in DECODINGS.items()
    }
    best = max(scores, key=lambda name: scores[name])
    print("on the holdout scenes:", json.dumps(scores), flush=True)
    add(f"likelihood, {best}", [start] * len(SEEDS), DECODINGS[best])
    runs = Path("runs") / f"{task}_controls"
    for name, path_of_row, changes in (
        ("likelihood continued", study.continued, ()),
        *((name, path, changes) for name, changes in study.tuned.items()),
    ):
        folder = runs / name.replace(",", "").replace(" ", "_")
        add(
            name,
            [
                policy_of(path_of_row, [*changes, f"seed={seed}"], folder / str(seed))
                for seed in SEEDS
            ],
        )
    for row in rows:
        row["machine"] = machine()
    output = FOLDER / f"{task}_controls.jsonl"
    output.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def policy_of(path: Path, changes: Sequence[str], directory: Path) -> Path:
    """The policy of a config's run, made unless it is there; its last, so nothing is chosen."""
    finished_run(load_config(path, [*changes, f"operations.directory={directory}"]))
    return directory / "policy.safetensors"


def measured(
    config: RunConfig,
    policy: Path,
    data: Path | None,
    decoding: Decoding = GREEDY,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Metrics and facts of what a policy predicts; ``seed`` draws it where decoding draws."""
    assert data is not None
    scenes = open_dataset(data)
    ready = policy_of_run(config, policy)
    evaluation = evaluate_policy(
        ready.policy,
        ready.task,
        scenes,
        indices=range(len(scenes)),
        decoding=decoding,
        seed=seed,
    )
    (records,) = evaluation.results.values()
    facts = DEMOS[config.task].facts
    return {**evaluation.metrics, **(facts(records, scenes) if facts else {})}


def means(found: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Each figure's mean and standard error over seeds."""
    mean_of: dict[str, object] = {}
    for name in found[0]:
        values = np.array([figures[name] for figures in found])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
        mean_of[name] = [round(float(values.mean()), 4), round(float(error), 4)]
    return mean_of


if __name__ == "__main__":
    main()
