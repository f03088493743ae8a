"""The demos: a pretrained policy on scenes of handwritten digits, tuned before your eyes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import Split
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.demo.curves import draw_curves
from rewardtune.demo.table import DEMOS, Demo
from rewardtune.evaluation.evaluate import Evaluation, evaluate_policy
from rewardtune.evaluation.paint import picture_grid
from rewardtune.evaluation.predict import ReadyPolicy, by_image, picture_of, policy_of_run
from rewardtune.json_file import write_json
from rewardtune.run.log import LOG_NAME, RunLog, open_run_log, read_run_log
from rewardtune.run.progress import counting
from rewardtune.run.result import RunResult
from rewardtune.tasks.captioning.caption_sources import captions_of
from rewardtune.tasks.captioning.cider.frequency_builder import (
    CountingOptions,
    build_document_frequencies,
)
from rewardtune.tasks.task import PicturedTask, Task

_NUM_PICTURES = 8
NUM_CURVES = 2
"""The first figures of a demo are fractions of one scale, or its reward and what it is made of."""
_PICTURE_SIDE = 288


def run_demo(
    config: RunConfig,
    *,
    tune: Callable[[RunConfig, RunLog], RunResult],
    directory: Path,
    demo: Demo | None = None,
    scenes_seed: int | None = None,
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
        demo: by default the one of the config's task.
        console: where to tell about it; by default stdout.

    Raises:
        ConfigError: the config does not tune a checkpoint on digit scenes.
    """
    started = time.perf_counter()
    console = console or Console()
    if config.mode != "tune" or config.policy.checkpoint is None:
        raise ConfigError("the demo needs a config with mode = 'tune' and a policy.checkpoint")
    if demo is None and config.task not in DEMOS:
        raise ConfigError(f"task = '{config.task}': there are demos of {', '.join(DEMOS)}")
    demo = demo or DEMOS[config.task]
    digits = config.data.train.parent
    _write_scenes(console, digits, demo, num_scenes=demo.num_scenes, seed=0)
    _count_ngrams(config)
    scenes_path = digits / "validation"
    if scenes_seed is not None:
        fresh = digits.with_name(f"{digits.name}-seed-{scenes_seed}")
        validation: dict[Split, int] = {"validation": demo.num_scenes["validation"]}
        _write_scenes(console, fresh, demo, num_scenes=validation, seed=scenes_seed)
        scenes_path = fresh / "validation"
    scenes = open_dataset(scenes_path)

    main = next(iter(demo.figures.values()))
    ready = policy_of_run(config, config.policy.checkpoint)
    before = _measure(ready, scenes, demo, title="before tuning")
    best = max(before.metrics_by_rule, key=lambda rule: before.metrics_by_rule[rule][main])
    _print_metrics(console, before.metrics_by_rule[best], demo, best)
    result = _tune(config, directory / "run", tune)
    if not result.is_finished:
        console.print("stopped before the end: the next demo starts anew")
        return None
    ready = policy_of_run(config, result.policy_path)
    after = _measure(ready, scenes, demo, title="after tuning")
    chosen = config.evaluation.score_rule or next(iter(after.metrics_by_rule))

    draw_curves(
        read_run_log(result.directory / LOG_NAME),
        directory / "curves.png",
        title=f"tuning to the {config.task} reward",
        metrics=[*demo.figures.values()][:NUM_CURVES],
    )
    results = {"before": before.results[best], "after": after.results[chosen]}
    _draw_scenes(ready.task, scenes, results).save(directory / "pictures.png")
    for name, records in results.items():
        _write_results(ready.task, records, directory / f"results_{name}")
    summary = {
        "task": config.task,
        **_figures(demo, before.metrics_by_rule[best], after.metrics_by_rule[chosen]),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(directory / "summary.json", summary)
    console.print(_table(before, after, demo, num_scenes=len(scenes)))
    for name in ("curves.png", "pictures.png"):
        console.print(str(directory / name), highlight=False, soft_wrap=True)
    return summary


def _write_scenes(
    console: Console, folder: Path, demo: Demo, *, num_scenes: Mapping[Split, int], seed: int
) -> None:
    with counting("digit scenes") as progress:
        is_new = write_digits(
            folder,
            num_scenes=num_scenes,
            seed=seed,
            style=demo.style,
            annotations=demo.annotations,
            progress=progress,
        )
    if is_new:
        count = sum(num_scenes.values())
        console.print(f"wrote {count} digit scenes to {folder}", highlight=False, soft_wrap=True)


def _count_ngrams(config: RunConfig) -> None:
    """The training captions' document frequencies, where the reward needs them."""
    name = config.task_options.get("document_frequencies")
    if name is None or Path(name).exists():
        return
    options = CountingOptions(end_of_sentence=config.task_options.get("scores_end", False))
    with counting("captions") as progress:
        build_document_frequencies(
            captions_of(config.data.train),
            Path(name),
            options=options,
            progress=lambda done: progress(done, done),
        )


def _measure(ready: ReadyPolicy, scenes: Dataset, demo: Demo, *, title: str) -> Evaluation:
    """All score rules at once: they rank the same predictions."""
    with counting(f"measuring {title}") as progress:
        evaluation = evaluate_policy(
            ready.policy,
            ready.task,
            scenes,
            indices=range(len(scenes)),
            score_rules=ready.task.score_rules,
            view=ready.view,
            progress=progress,
        )
    if demo.facts is None:
        return evaluation
    by_rule = {
        rule: {**metrics, **demo.facts(evaluation.results[rule], scenes)}
        for rule, metrics in evaluation.metrics_by_rule.items()
    }
    return replace(evaluation, metrics_by_rule=by_rule)


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


def _draw_scenes(
    task: Task, scenes: Dataset, results: Mapping[str, Sequence[dict[str, Any]]]
) -> Image.Image:
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
        annotation = picture_of(task, scenes, example, None, min_side=_PICTURE_SIDE)
        found = [
            picture_of(
                task,
                scenes,
                example,
                of[example.image_id],
                min_score=min_score_of[name],
                min_side=_PICTURE_SIDE,
            )
            for name, of in records_of.items()
        ]
        drawn.append([annotation, *found])
    titles = ["annotation", *results]
    if len(drawn) % 2:
        return picture_grid(drawn, titles=titles)
    pairs = [left + right for left, right in zip(drawn[::2], drawn[1::2], strict=True)]
    return picture_grid(pairs, titles=2 * titles)


def _score_of_best(records: Sequence[dict[str, Any]], *, count: int) -> float:
    """From which score on there are ``count`` boxes: scores of two policies do not compare."""
    scores = sorted((float(record.get("score", 1.0)) for record in records), reverse=True)
    return scores[min(count, len(scores)) - 1] if scores else 0.0


def _write_results(task: Task, records: Sequence[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(task, PicturedTask):
        task.write_results(records, folder)
    else:
        write_json(folder / "results.json", records)


def _figures(
    demo: Demo, before: Mapping[str, float], after: Mapping[str, float]
) -> dict[str, float]:
    return {
        f"{name}_{when}": round(metrics[metric], 4)
        for name, metric in demo.figures.items()
        for when, metrics in (("before", before), ("after", after))
    }


def _table(before: Evaluation, after: Evaluation, demo: Demo, *, num_scenes: int) -> Table:
    table = Table(title=f"{num_scenes} scenes of digits never seen in training")
    table.add_column("")
    has_scores = len(before.metrics_by_rule) > 1
    if has_scores:
        table.add_column("scores are")
    for name in demo.figures:
        table.add_column(name.replace("_", " "), justify="right")
    for when, evaluation in (("before", before), ("after", after)):
        for rule, metrics in evaluation.metrics_by_rule.items():
            row = [when, rule] if has_scores else [when]
            table.add_row(*row, *(f"{metrics[metric]:.4f}" for metric in demo.figures.values()))
    return table


def _print_metrics(console: Console, metrics: Mapping[str, float], demo: Demo, rule: str) -> None:
    words = ", ".join(f"{name} {metrics[metric]:.4f}" for name, metric in demo.figures.items())
    console.print(f"before: {words} (scores: {rule})", highlight=False)
