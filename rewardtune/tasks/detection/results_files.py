"""COCO's results of boxes or masks, scored against COCO instances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rewardtune.datasets.coco.official_files import read_annotations, read_detection_results
from rewardtune.tasks.detection.coco_records import IouType
from rewardtune.tasks.detection.metric import coco_metrics
from rewardtune.tasks.results_files import needed_annotations, read_file_options


class DetectionFileOptions(BaseModel):
    """What ``rewardtune score detection`` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iou_type: IouType | None = None
    """Match by boxes or masks; None: by what the first record has. As officially, masks are boxed
    for "bbox", and boxes filled for "segm"."""

    per_class: bool = False
    per_image: bool = False


def score_detections(
    results: Path, annotations: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """COCO's AP and AR: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl.

    Args:
        results: COCO results JSON, boxes or masks.
        annotations: COCO instances JSON.
        options: the fields of ``DetectionFileOptions``.

    Raises:
        As ``rewardtune.tasks.results_files.ResultsTask.score_files``.
    """
    told = read_file_options(DetectionFileOptions, options, task="detection")
    annotations = needed_annotations(annotations, task="detection")
    records, of_records = read_detection_results(results)
    return coco_metrics(
        read_annotations(annotations, "instances"),
        records,
        iou_type=told.iou_type or of_records,
        per_class=told.per_class,
        per_image=told.per_image,
    )
