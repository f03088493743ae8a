"""What a small detector needs to learn boxes by likelihood: ``python -m studies.starting_points``.

Fresh networks of 0.85 M parameters on scenes of one or two digits, by plain likelihood: the recipe
of configs/digits_detection_sparse_mle.toml, and the same with one thing changed at a time
(``studies/starting_variants.py``). On 300 holdout scenes: nats of each kind of token given those
before it, greedy mAP and AR@100. One JSON object per run goes to
evidence/studies/starting_points.jsonl; runs that stand there are not repeated.
Scenes: those that the config's head names.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from bench.figure import EVIDENCE
from rewardtune.config.config_file import load_config
from rewardtune.datasets.frame import Framed
from rewardtune.evaluation.evaluate import VIEW, evaluate_policy
from rewardtune.run.assembly import Parts, assemble
from rewardtune.run.machine import machine
from rewardtune.run.pretraining import PretrainingLoop
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.detection.codec import CONFIDENCE_SLOT, TOKENS_PER_BOX
from studies.starting_variants import RECIPE, VARIANTS, Layout, Variant

CONFIG = Path("configs/digits_detection_strong_sparse_mle.toml")
OUTPUT = EVIDENCE / "studies" / "starting_points.jsonl"
KINDS = ("y0", "x0", "y1", "x1", "class", "confidence")
NUM_SCENES = 300
"""Of the holdout set, on which everything is measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.starting_points", description=__doc__.partition(":")[0]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", metavar="NAME", choices=[v.name for v in VARIANTS])
    parser.add_argument("--steps", type=int, default=1000, help="to the schedule's end")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    told = parser.parse_args(arguments)
    wanted = [v for v in VARIANTS if told.variants is None or v.name in told.variants]
    done = {(r["variant"], r["seed"], r["steps"]) for r in read(told.output)}
    for seed in told.seeds:
        for variant in wanted:
            if (variant.name, seed, told.steps) not in done:
                record = trained(variant, seed=seed, num_steps=told.steps)
                with told.output.open("a") as file:
                    file.write(f"{json.dumps(record)}\n")
    Console().print(table(read(told.output)))


def trained(
    variant: Variant,
    *,
    seed: int,
    num_steps: int,
    every: int = 250,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """One network by likelihood, measured every so many steps.

    Args:
        settings: of the run, before what the variant changes.
    """
    num_own = round(num_steps * variant.share_of_steps)
    overrides = [*settings, *variant.overrides, f"seed={seed}", f"learner.num_steps={num_own}"]
    parts = assemble(load_config(CONFIG, overrides))
    if variant.layout is not None:
        parts = replace(parts, task=Layout(parts.task, variant.layout))
    parts = replace(parts, policy=variant.change(parts.policy, parts.task.vocabulary))
    loop, started, curve, losses = PretrainingLoop(parts, tell=print), time.process_time(), [], []
    for step in range(1, num_own + 1):
        report, _ = loop.step()
        losses.append(report.metrics["loss"])
        if step % every == 0 or step == num_own:
            figures = {"step": step, "loss": float(np.mean(losses)), **measured(parts)}
            curve.append({name: round(value, 4) for name, value in figures.items()})
            losses.clear()
            print(json.dumps({"variant": variant.name, "seed": seed, **curve[-1]}), flush=True)
    return {
        "variant": variant.name,
        "seed": seed,
        "steps": num_steps,
        "parameters": sum(p.numel() for p in parts.policy.parameters()),
        "core_seconds": round(time.process_time() - started),
        "curve": curve,
        "machine": machine(),
    }


@torch.no_grad()
def measured(parts: Parts) -> dict[str, float]:
    """Nats by kind of token, of boxes that are there, and what greedy decoding finds."""
    assert parts.holdout is not None
    indices = range(min(NUM_SCENES, len(parts.holdout)))
    tokens_NT = np.stack(
        [
            parts.task.target_tokens(
                Framed.of(parts.holdout.example(index), VIEW, parts.policy.framing),
                rng=np.random.default_rng(index),
            )
            for index in indices
        ]
    )
    images_NHWC = images_in_view(
        parts.holdout,
        [(index, VIEW) for index in indices],
        task=parts.task,
        framing=parts.policy.framing,
    )
    drawn_GST = parts.policy.log_prob(
        torch.from_numpy(images_NHWC), torch.from_numpy(tokens_NT).long()[:, None]
    ).drawn_GST
    nats_NT = -drawn_GST[:, 0].numpy()
    if isinstance(parts.task, Layout):
        tokens_NT, nats_NT = parts.task.plain(tokens_NT), parts.task.plain(nats_NT)
    boxes = (len(tokens_NT), -1, TOKENS_PER_BOX)
    is_box_NP = tokens_NT.reshape(boxes)[..., CONFIDENCE_SLOT] > 0
    nats_M6 = nats_NT.reshape(boxes)[is_box_NP]
    evaluation = evaluate_policy(parts.policy, parts.task, parts.holdout, indices=indices)
    return {
        **dict(zip(KINDS, nats_M6.mean(axis=0).tolist(), strict=True)),
        **{name: evaluation.metrics[name] for name in ("map", "ar100")},
    }


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(records: Sequence[Mapping[str, Any]]) -> Table:
    """The last measurement of each variant, means over its seeds."""
    shown = Table(title="likelihood on sparse scenes: nats by kind of token, holdout mAP")
    for heading in ("changed", "steps", "seeds", "loss", *KINDS[:5], "mAP", "AR@100"):
        shown.add_column(heading)
    runs = {(r["variant"], r["steps"]) for r in records}
    changed = {variant.name: variant.changed for variant in VARIANTS}
    order = list(changed)
    for name, steps in sorted(runs, key=lambda run: (run[1], order.index(run[0]))):
        ends = [r["curve"][-1] for r in records if (r["variant"], r["steps"]) == (name, steps)]
        figures = ("loss", *KINDS[:5], "map", "ar100")
        means = {figure: float(np.mean([end[figure] for end in ends])) for figure in figures}
        style = "bold" if name == RECIPE else None
        cells = [f"{mean:.3f}" for mean in means.values()]
        shown.add_row(changed[name], str(steps), str(len(ends)), *cells, style=style)
    return shown


if __name__ == "__main__":
    main()
