"""Files of results, scored as ``rewardtune evaluate`` scores the task's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from keypoints.oks import coco_keypoint_metrics
from keypoints.points import POINTS, annotation_of, extreme_points, mask_of
from rewardtune.datasets.coco.official_files import read_annotations, read_records
from rewardtune.datasets.coco.record_fields import ID, NUMBER, check_records, numbers
from rewardtune.tasks.results_files import needed_annotations, read_file_options

RECORD = {
    "image_id": ID,
    "category_id": ID,
    "keypoints": numbers(3 * len(POINTS), "x, y and 2 for each point"),
    "score": NUMBER,
}


class FileOptions(BaseModel):
    """``--option``s of ``rewardtune score keypoints``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sigma: float = Field(default=0.1, gt=0)


def score_keypoints(
    results: Path, annotations: Path | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """COCO's AP and AR of keypoint results; the points sought are those of the masks.

    Args:
        results: COCO keypoint results, four points to a record.
        annotations: a COCO instances file.
    """
    told = read_file_options(FileOptions, options, task="keypoints")
    annotations = needed_annotations(annotations, task="keypoints")
    truth = read_annotations(annotations, "instances")
    check_records(truth["images"], {"height": ID, "width": ID}, annotations, where="image")
    check_records(truth["annotations"], {"area": NUMBER}, annotations, where="annotation")
    size_of = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    records = read_records(results, RECORD)
    for path, listed in ((annotations, truth["annotations"]), (results, records)):
        for record in listed:
            if record["image_id"] not in size_of:
                raise ValueError(
                    f"{path} speaks of image {record['image_id']}: {annotations} does not list it"
                )
    objects = list(_objects(truth["annotations"], size_of))
    return dict(coco_keypoint_metrics(list(size_of), objects, records, sigma=told.sigma))


def _objects(
    annotations: Sequence[Mapping[str, Any]], size_of: Mapping[int, tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    for annotation in annotations:
        mask = mask_of(annotation.get("segmentation"), size_of[annotation["image_id"]])
        if mask.any() and not annotation.get("iscrowd"):
            yield {
                "id": annotation["id"],
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                **annotation_of(np.array(extreme_points(mask)), float(annotation["area"])),
            }
