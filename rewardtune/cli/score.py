"""``rewardtune score``: the official metric of a results file, as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

Folder = Annotated[Path | None, typer.Option(help="Folder of PNGs; by default the JSON's name.")]


def score(
    task: Annotated[
        str, typer.Argument(help="A task, or the (dotted) name of a module of your own with one.")
    ],
    results: Annotated[Path, typer.Argument(help="Results JSON; for colour a folder of pictures.")],
    annotations: Annotated[
        Path | None, typer.Option(help="COCO annotations JSON; for colour a folder of originals.")
    ] = None,
    iou_type: Annotated[
        Literal["bbox", "segm"] | None,
        typer.Option(help="Detection: by default boxes if the records have them, else masks."),
    ] = None,
    statistics: Annotated[
        str | None,
        typer.Option(help="Captions: 'corpus', or a file that data cider-stats wrote."),
    ] = None,
    is_tokenized: Annotated[
        bool, typer.Option("--tokenized", help="Captions are words between blanks already.")
    ] = False,
    results_images: Folder = None,
    annotations_images: Folder = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also a table by class.")] = False,
    per_image: Annotated[bool, typer.Option("--per-image", help="Also every image.")] = False,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="Another of the task's own, key=value; may be repeated."),
    ] = None,
) -> None:
    """Score a results file in its official format: prints one JSON object.

    Every digit is printed. CIDEr-D is on the code's scale, 0 to 10; papers print ten times that.
    """
    from rewardtune.cli.task_options import task_options
    from rewardtune.evaluation.results_files import results_task
    from rewardtune.run.progress import counting

    named = {
        "iou_type": iou_type,
        "statistics": statistics,
        "is_tokenized": is_tokenized,
        "results_images": results_images,
        "annotations_images": annotations_images,
        "per_class": per_class,
        "per_image": per_image,
    }
    given = {name: value for name, value in named.items() if value not in (None, False)}
    scored = results_task(task)
    with counting("scoring") as progress:
        figures = scored.score_files(
            results, annotations, {**given, **task_options(option or ())}, progress=progress
        )
    # No NaN or infinity: a program that reads this would choke on them.
    typer.echo(json.dumps(figures, indent=1, allow_nan=False))
