"""A trained policy at work, on a data set or a folder of pictures, and its predictions painted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.image_folder import ImageFolder
from rewardtune.datasets.images import decode_image
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.datasets.view import ViewConfig
from rewardtune.evaluation.evaluate import VIEW, evaluate_policy
from rewardtune.evaluation.paint import (
    annotated_boxes,
    enlarged,
    paint_boxes,
    predicted_boxes,
    side_by_side,
)
from rewardtune.json_file import write_json
from rewardtune.policies.draw import GREEDY, Decoding
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import LoadedPolicy, check_vocabulary, load_policy
from rewardtune.records import Score, View
from rewardtune.tasks.task import PicturedTask, Task, load_task


@dataclass(frozen=True, slots=True)
class ReadyPolicy:
    """A policy on its device, with the task whose tokens it speaks."""

    policy: Policy
    task: Task
    view: View = VIEW
    """In which it is to be shown whole images: as its training laid them into the input."""


def policy_for_data(
    path: Path,
    dataset: Dataset,
    *,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 2,
) -> ReadyPolicy:
    """Load a policy for a data set of the classes that it knows.

    Args:
        path: the policy's file.
        task: by default the one that the file names.
        options: the task's, over those that the file names.
        threads: of torch, from here on.

    Raises:
        ValueError: no policy, or it speaks other tokens than the task on these data.
    """
    return _ready(
        path, load_policy(path), dataset.categories, task=task, options=options, threads=threads
    )


def policy_of_run(config: RunConfig, path: Path) -> ReadyPolicy:
    """Load a policy that a run starts from or made, for the task as the run has it.

    Raises:
        ValueError: as ``policy_for_data``.
    """
    return policy_for_data(
        path,
        # Its class counts are those that the reward is weighed by.
        open_dataset(config.data.train),
        task=config.task,
        options=config.task_options,
        threads=config.compute.threads,
    )


def policy_for_images(
    path: Path,
    images: Path,
    *,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
    threads: int = 2,
) -> tuple[ReadyPolicy, ImageFolder]:
    """Load a policy and open a folder of pictures, in which it may find any class it knows.

    Raises:
        ValueError: as ``policy_for_data``, or there are no pictures.
    """
    loaded = load_policy(path)
    names = loaded.vocabulary.get("class_names", ())
    things = loaded.vocabulary.get("is_thing", [True] * len(names))
    categories = [
        Category(id=number, name=name, is_thing=is_thing)
        for number, (name, is_thing) in enumerate(zip(names, things, strict=True), start=1)
    ]
    folder = ImageFolder(images, categories=categories)
    ready = _ready(path, loaded, categories, task=task, options=options, threads=threads)
    return ready, folder


def write_predictions(
    ready: ReadyPolicy,
    dataset: Dataset,
    output: Path,
    *,
    indices: Sequence[int],
    score_rule: str | None = None,
    min_score: float = 0.0,
    decoding: Decoding = GREEDY,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write the results and a picture of every example; returns how many.

    Pictures show the annotation beside the prediction, where there is one. Results are
    ``results.json``, or the task's own official files. They have all boxes, whatever
    ``min_score``.
    """
    is_plain = isinstance(dataset, ImageFolder)
    evaluation = evaluate_policy(
        ready.policy,
        cast(Task, _Unjudged(ready.task)) if is_plain else ready.task,
        dataset,
        indices=indices,
        score_rules=[score_rule] if score_rule else None,
        decoding=decoding,
        seed=seed,
        view=ready.view,
        progress=progress,
    )
    (records,) = evaluation.results.values()
    records_of = by_image(records)
    output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    names: set[str] = set()
    for index in indices:
        example = dataset.example(index)
        found = records_of[example.image_id]
        if isinstance(dataset, ImageFolder):
            found = [_named(record, example, dataset) for record in found]
        results += found
        prediction = picture_of(ready.task, dataset, example, found, min_score=min_score)
        if not isinstance(dataset, ImageFolder):
            annotation = picture_of(ready.task, dataset, example, None)
            prediction = side_by_side({"annotation": annotation, "prediction": prediction})
        name = Path(example.file_name).stem
        if name in names:  # a.jpg and a.png, or the same name in two folders
            name = f"{name}-{example.image_id}"
        names.add(name)
        prediction.save(output / f"{name}.png")
    if isinstance(ready.task, PicturedTask):
        ready.task.write_results(results, output)
    else:
        write_json(output / "results.json", results)
    return len(indices)


def by_image(records: Sequence[dict[str, Any]]) -> Mapping[int, list[dict[str, Any]]]:
    """Results by the image they are of; an image without any has an empty list."""
    records_of: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        records_of[record["image_id"]].append(record)
    return records_of


def _ready(
    path: Path,
    loaded: LoadedPolicy,
    categories: Sequence[Category],
    *,
    task: str | None,
    options: Mapping[str, Any] | None,
    threads: int,
) -> ReadyPolicy:
    torch.set_num_threads(threads)
    made_for = loaded.provenance.get("task", loaded.vocabulary.get("task"))
    task = made_for if task is None else task
    if task is None:
        raise ValueError(f"policy {path} does not say what task it is for: name it with --task")
    known = loaded.provenance.get("task_options", {}) if task == made_for else {}
    built = load_task(task, {**known, **(options or {})}, categories=categories)
    check_vocabulary(loaded.vocabulary, built.vocabulary.describe(), path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    views = ViewConfig(keep_aspect=loaded.provenance.get("keep_aspect", True))
    return ReadyPolicy(policy=loaded.policy.to(device).eval(), task=built, view=views.whole)


class _Unjudged:
    """A task whose predictions nobody can judge: plain pictures have no annotation."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def score(self, decoded: Sequence[Any], framed: Framed) -> Score:
        return Score(reward_S=np.zeros(len(decoded)))

    def evaluate(self, *results: Any, indices: Sequence[int]) -> dict[str, float]:
        return {}


def picture_of(
    task: Task,
    dataset: Dataset,
    example: Example,
    records: Sequence[dict[str, Any]] | None,
    *,
    min_score: float = 0.0,
    min_side: int = 384,
) -> Image.Image:
    """What was found in an example, or, of None, what its annotation says.

    Args:
        min_score: of boxes that are painted.
        min_side: smaller pictures are enlarged by a whole number.
    """
    if isinstance(task, PicturedTask):
        return enlarged(task.paint(example, records), min_side=min_side)
    boxes = (
        annotated_boxes(example, dataset.categories)
        if records is None
        else predicted_boxes(records, dataset.categories, min_score=min_score)
    )
    return paint_boxes(decode_image(example.image), boxes, min_side=min_side)


def _named(record: dict[str, Any], example: Example, folder: ImageFolder) -> dict[str, Any]:
    """A record that says by name what nobody else numbers."""
    named = {"file_name": example.file_name, **record}
    if "category_id" in record:
        names = {category.id: category.name for category in folder.categories}
        named["category_name"] = names[record["category_id"]]
    return named
