"""COCO box AP and AR, computed by pycocotools: the official figures to the last digit.

Ground truth and results are in COCO's own formats. Ids are taken as they are: an annotation
whose id is 0 counts as never found (cocoapi issue 332), here as there.

Axes: R recall points, K categories, A area ranges, M detection limits; thresholds first.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

METRIC_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip


def coco_box_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    image_ids: Sequence[int] | None = None,
) -> dict[str, float]:
    """The twelve official numbers by name, fractions in [0, 1].

    -1 where nothing of that size is annotated, as officially; no results at all score 0.

    Args:
        ground_truth: COCO instances dictionary: images, annotations, categories.
        results: records of image_id, category_id, bbox (left, top, width, height in pixels)
            and score; in file order, which decides between equal scores. Not changed.
        image_ids: evaluate these images only; all by default.

    Raises:
        ValueError: results for images that the ground truth does not have, or broken records.
    """
    evaluation = _evaluate(ground_truth, results, image_ids=image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return dict(zip(METRIC_NAMES, map(float, evaluation.stats), strict=True))


def coco_box_table(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    image_ids: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """One row per category, in order of id: category_id, name, num_objects and the numbers.

    The numbers are those of ``coco_box_metrics``, which averages them over categories and
    thresholds; -1 where the category has no object of that size. ``num_objects`` leaves out
    crowd regions.
    """
    evaluation = _evaluate(ground_truth, results, image_ids=image_ids)
    precision_TRKAM: NDArray[np.float64] = evaluation.eval["precision"]
    recall_TKAM: NDArray[np.float64] = evaluation.eval["recall"]
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    chosen = set(evaluation.params.imgIds)
    rows = []
    for k, category_id in enumerate(evaluation.params.catIds):
        precision_TRAM, recall_TAM = precision_TRKAM[:, :, k], recall_TKAM[:, k]
        values = [
            precision_TRAM[:, :, 0, 2],
            precision_TRAM[0, :, 0, 2],
            precision_TRAM[5, :, 0, 2],
            *(precision_TRAM[:, :, area, 2] for area in (1, 2, 3)),
            *(recall_TAM[:, 0, limit] for limit in (0, 1, 2)),
            *(recall_TAM[:, area, 2] for area in (1, 2, 3)),
        ]
        rows.append(
            {
                "category_id": category_id,
                "name": names[category_id],
                "num_objects": sum(
                    annotation["category_id"] == category_id
                    and annotation["image_id"] in chosen
                    and not annotation.get("iscrowd", 0)
                    for annotation in ground_truth["annotations"]
                ),
            }
            | {
                name: float(np.mean(value[value > -1])) if np.any(value > -1) else -1.0
                for name, value in zip(METRIC_NAMES, values, strict=True)
            }
        )
    return rows


def _evaluate(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    image_ids: Sequence[int] | None,
) -> COCOeval:
    known = {image["id"] for image in ground_truth["images"]}
    if unknown := sorted({record["image_id"] for record in results} - known)[:5]:
        raise ValueError(
            f"results name images that the annotations do not have, such as {unknown}: "
            "evaluate them with the annotation file of their own images"
        )
    # As pycocotools' loadRes does, which cannot read an empty list and writes into its input.
    detections = []
    for number, record in enumerate(results, start=1):
        left, top, width, height = record["bbox"]
        if not np.all(np.isfinite([left, top, width, height, record["score"]])):
            raise ValueError(f"result {number} has a box or score that is not finite: {record}")
        detections.append(
            {
                "id": number,
                "image_id": record["image_id"],
                "category_id": record["category_id"],
                "bbox": [left, top, width, height],
                "score": record["score"],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    annotations = [dict(annotation) for annotation in ground_truth["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _index({**ground_truth, "annotations": annotations}),
            _index({**ground_truth, "annotations": detections}),
            "bbox",
        )
        if image_ids is not None:
            evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _index(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco
