"""The demo: a pretrained detector of handwritten digits, tuned to mAP before your eyes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from rewardtune.config import ConfigError, RunConfig
from rewardtune.curves import draw_curves
from rewardtune.draw import annotated_boxes, draw_boxes, picture_grid, predicted_boxes
from rewardtune.evaluation import Evaluation, evaluate_policy
from rewardtune.json_file import write_json
from rewardtune.local import RunResult
from rewardtune.predict import by_image, policy_for_data
from rewardtune.progress import counting
from rewardtune.run_log import LOG_NAME, RunLog, open_run_log, read_run_log
from tasks.digit_files import NUM_SCENES, write_digits
from tasks.digits import Split
from tasks.example import Dataset
from tasks.images import decode_image
from tasks.shards import open_dataset

_FIGURES = ("map", "ar100", "reward")
_NUM_PICTURES = 8
_PICTURE_SIDE = 288


def run_demo(
    config: RunConfig,
    *,
    tune: Callable[[RunConfig, RunLog], RunResult],
    directory: Path,
    scenes_seed: int | None = None,
    num_scenes: Mapping[Split, int] = NUM_SCENES,
    console: Console | None = None,
) -> dict[str, Any] | None:
    """Measure, tune, measure again; returns the summary, or None if a signal stopped it.

    ``directory`` then holds ``curves.png``, ``pictures.png``, official results before and after,
    ``summary.json`` and the run itself in ``run``, which is made anew every time. Before tuning,
    figures are those of the score rule that the policy does best by; after it, of the one that
    the config names.

    Args:
        tune: ``local.tune`` or ``launch.tune_on_ray``.
        config: a tuning run on digit scenes; they are written where ``data.train`` looks for
            them, unless they are there.
        scenes_seed: measure on scenes drawn afresh from this seed, and from the same validation
            digits; None: on the validation scenes.
        num_scenes: of each split.
        console: where to tell about it; by default stdout.

    Raises:
        ConfigError: the config does not tune a checkpoint on digit scenes.
    """
    started = time.perf_counter()
    console = console or Console()
    if config.mode != "tune" or config.policy.checkpoint is None:
        raise ConfigError("the demo needs a config with mode = 'tune' and a policy.checkpoint")
    digits = config.data.train.parent
    _write_scenes(console, digits, num_scenes=num_scenes, seed=0)
    scenes_path = digits / "validation"
    if scenes_seed is not None:
        fresh = digits.with_name(f"{digits.name}-seed-{scenes_seed}")
        validation: dict[Split, int] = {"validation": num_scenes["validation"]}
        _write_scenes(console, fresh, num_scenes=validation, seed=scenes_seed)
        scenes_path = fresh / "validation"
    scenes = open_dataset(scenes_path)

    before = _measure(config, config.policy.checkpoint, scenes, title="before tuning")
    best = max(before.metrics_by_rule, key=lambda rule: before.metrics_by_rule[rule]["map"])
    _print_metrics(console, "before", before, best)
    result = _tune(config, directory / "run", tune)
    if not result.is_finished:
        console.print("stopped before the end: the next demo starts anew")
        return None
    after = _measure(config, result.policy_path, scenes, title="after tuning")
    chosen = config.evaluation.score_rule or next(iter(after.metrics_by_rule))

    draw_curves(
        read_run_log(result.directory / LOG_NAME),
        directory / "curves.png",
        title=f"tuning to the {config.task} reward",
    )
    results = {"before": before.results[best], "after": after.results[chosen]}
    _draw_scenes(scenes, results).save(directory / "pictures.png")
    for name, records in results.items():
        write_json(directory / f"results_{name}.json", records)
    summary = _summary(config, before.metrics_by_rule[best], after.metrics_by_rule[chosen])
    summary["seconds"] = round(time.perf_counter() - started, 1)
    write_json(directory / "summary.json", summary)
    console.print(_table(before, after, num_scenes=len(scenes)))
    for name in ("curves.png", "pictures.png"):
        console.print(str(directory / name), highlight=False, soft_wrap=True)
    return summary


def _write_scenes(
    console: Console, folder: Path, *, num_scenes: Mapping[Split, int], seed: int
) -> None:
    with counting("digit scenes") as progress:
        is_new = write_digits(folder, num_scenes=num_scenes, seed=seed, progress=progress)
    if is_new:
        count = sum(num_scenes.values())
        console.print(f"wrote {count} digit scenes to {folder}", highlight=False, soft_wrap=True)


def _measure(config: RunConfig, policy: Path, scenes: Dataset, *, title: str) -> Evaluation:
    """All score rules at once: they rank the same boxes."""
    ready = policy_for_data(
        policy,
        # Its class counts are those that the reward was weighed by.
        open_dataset(config.data.train),
        task=config.task,
        options=config.task_options,
        threads=config.compute.threads,
    )
    with counting(f"measuring {title}") as progress:
        return evaluate_policy(
            ready.policy,
            ready.task,
            scenes,
            indices=range(len(scenes)),
            score_rules=ready.task.score_rules,
            progress=progress,
        )


def _tune(
    config: RunConfig, directory: Path, tune: Callable[[RunConfig, RunLog], RunResult]
) -> RunResult:
    """Tune from the beginning, whatever an earlier demo left."""
    if (directory / "config.json").exists():  # so it is a run
        shutil.rmtree(directory)
    operations = config.operations.model_copy(update={"directory": directory})
    config = config.model_copy(update={"operations": operations})
    with contextlib.closing(open_run_log(config, config.learner.num_steps)) as log:
        return tune(config, log)


def _draw_scenes(scenes: Dataset, results: Mapping[str, Sequence[dict[str, Any]]]) -> Image.Image:
    """Some scenes, two to a row: annotation, then what was found before and after."""
    step = max(1, len(scenes) // _NUM_PICTURES)  # spread over the set, not picked
    records_of = {name: by_image(records) for name, records in results.items()}
    num_objects = sum(len(scenes.example(index).category_N) for index in range(len(scenes)))
    min_score_of = {
        name: _score_of_best(records, count=num_objects) for name, records in results.items()
    }
    drawn = []
    for index in range(0, len(scenes), step)[:_NUM_PICTURES]:
        example = scenes.example(index)
        image_HWC = decode_image(example.image)
        found = [
            predicted_boxes(of[example.image_id], scenes.categories, min_score=min_score_of[name])
            for name, of in records_of.items()
        ]
        annotated = annotated_boxes(example, scenes.categories)
        drawn.append(
            [draw_boxes(image_HWC, boxes, min_side=_PICTURE_SIDE) for boxes in (annotated, *found)]
        )
    titles = ["annotation", *results]
    if len(drawn) % 2:
        return picture_grid(drawn, titles=titles)
    pairs = [left + right for left, right in zip(drawn[::2], drawn[1::2], strict=True)]
    return picture_grid(pairs, titles=2 * titles)


def _score_of_best(records: Sequence[dict[str, Any]], *, count: int) -> float:
    """From which score on there are ``count`` boxes: scores of two policies do not compare."""
    scores = sorted((float(record["score"]) for record in records), reverse=True)
    return scores[min(count, len(scores)) - 1] if scores else 0.0


def _summary(
    config: RunConfig, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, Any]:
    figures = {
        f"{name}_{when}": round(metrics[name], 4)
        for name in _FIGURES
        for when, metrics in (("before", before), ("after", after))
    }
    return {"task": config.task, **figures}


def _table(before: Evaluation, after: Evaluation, *, num_scenes: int) -> Table:
    table = Table(title=f"{num_scenes} scenes of digits never seen in training")
    table.add_column("")
    table.add_column("scores are")
    for name in _FIGURES:
        table.add_column(name, justify="right")
    for when, evaluation in (("before", before), ("after", after)):
        for rule, metrics in evaluation.metrics_by_rule.items():
            table.add_row(when, rule, *(f"{metrics[name]:.4f}" for name in _FIGURES))
    return table


def _print_metrics(console: Console, when: str, evaluation: Evaluation, rule: str) -> None:
    metrics = evaluation.metrics_by_rule[rule]
    words = ", ".join(f"{name} {metrics[name]:.4f}" for name in _FIGURES)
    console.print(f"{when}: {words} (scores: {rule})", highlight=False)
