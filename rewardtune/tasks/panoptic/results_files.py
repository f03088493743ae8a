"""COCO's panoptic results, scored against COCO's panoptic annotations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rewardtune.datasets.coco.official_files import (
    panoptic_folder,
    read_annotations,
    read_panoptic_results,
)
from rewardtune.tasks.panoptic.metric import panoptic_metrics
from rewardtune.tasks.results_files import Progress, needed_annotations, read_file_options


class PanopticFileOptions(BaseModel):
    """What ``rewardtune score panoptic`` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results_images: Path | None = None
    """Folder of the results' PNGs; by default the JSON's name without ``.json``, beside it."""

    annotations_images: Path | None = None
    """The same of the annotations."""

    per_class: bool = False
    per_image: bool = False


def score_maps(
    results: Path,
    annotations: Path | None,
    options: Mapping[str, Any],
    *,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Panoptic quality: All, Things and Stuff with pq, sq, rq and n.

    Args:
        results, annotations: COCO panoptic JSON, PNGs beside it.
        options: the fields of ``PanopticFileOptions``.

    Raises:
        As ``rewardtune.tasks.results_files.ResultsTask.score_files``.
    """
    told = read_file_options(PanopticFileOptions, options, task="panoptic")
    annotations = needed_annotations(annotations, task="panoptic")
    return panoptic_metrics(
        read_annotations(annotations, "panoptic"),
        panoptic_folder(annotations, told.annotations_images, option="annotations_images"),
        read_panoptic_results(results),
        panoptic_folder(results, told.results_images, option="results_images"),
        per_class=told.per_class,
        per_image=told.per_image,
        progress=progress,
    )
