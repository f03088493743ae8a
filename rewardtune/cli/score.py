"""``rewardtune score``: the official metric of a results file, as one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

Folder = Annotated[Path | None, typer.Option(help="Folder of PNGs; by default the JSON's name.")]


def score(
    task: Annotated[
        Literal["detection", "panoptic", "captioning", "colorization"],
        typer.Argument(help="What the results are of."),
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
) -> None:
    """Score a results file in its official format: prints one JSON object.

    Every digit is printed. CIDEr-D is on the code's scale, 0 to 10; papers print ten times that.
    """
    from rewardtune.evaluation import results_files as scoring
    from rewardtune.run.progress import counting

    with counting("scoring") as progress:
        figures = scoring.score(
            task,
            results,
            annotations=annotations,
            iou_type=iou_type,
            statistics=statistics,
            is_tokenized=is_tokenized,
            results_images=results_images,
            annotations_images=annotations_images,
            per_class=per_class,
            per_image=per_image,
            progress=progress,
        )
    # No NaN or infinity: a program that reads this would choke on them.
    typer.echo(json.dumps(figures, indent=1, allow_nan=False))
