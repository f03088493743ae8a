"""COCO AP and AR of boxes or masks, by pycocotools: the official figures to the last digit.

Ground truth and results are in COCO's own formats. Ids are taken as they are: an annotation
whose id is 0 counts as never found (cocoapi issue 332), here as there.

Axes: T thresholds, R recall points, K categories, A area ranges, M detection limits, I images.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rewardtune.tasks.detection.coco_records import IouType, checked_ground_truth, checked_results

METRIC_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip


def coco_metrics(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    iou_type: IouType = "bbox",
    image_ids: Sequence[int] | None = None,
    per_class: bool = False,
    per_image: bool = False,
) -> dict[str, Any]:
    """The twelve official numbers by name, fractions in [0, 1].

    -1 where nothing of that size is annotated, as officially; no results at all score 0.

    Args:
        ground_truth: COCO instances dictionary: images, annotations, categories.
        results: records of image_id, category_id, score, and bbox (left, top, width, height in
            pixels) or segmentation (compressed RLE); in file order, which decides between equal
            scores. Not changed.
        iou_type: overlaps of boxes or of masks.
        image_ids: evaluate these images only; all by default.
        per_class: also "per_class": a row per category in order of id, with category_id, name,
            num_objects and the numbers of that category alone. The official numbers are the
            means of the rows' over all that are not -1 (area ranges and thresholds apart).
        per_image: also "per_image": a row per image in order of id, with image_id, num_objects
            and the numbers of that image alone.

    ``num_objects`` leaves out crowd regions.

    Raises:
        ValueError: records that are broken, or of images that the ground truth does not have.
    """
    evaluation = coco_evaluation(ground_truth, results, iou_type=iou_type, image_ids=image_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    metrics: dict[str, Any] = dict(zip(METRIC_NAMES, map(float, evaluation.stats), strict=True))
    if per_class:
        metrics["per_class"] = _class_rows(evaluation)
    if per_image:
        metrics["per_image"] = _image_rows(evaluation)
    return metrics


def coco_box_metrics(
    ground_truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The twelve numbers of boxes; see ``coco_metrics``."""
    return coco_metrics(ground_truth, results)


def coco_evaluation(
    ground_truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    iou_type: IouType = "bbox",
    image_ids: Sequence[int] | None = None,
) -> COCOeval:
    """Matched and accumulated by pycocotools: ``evalImgs`` and ``eval`` are its own tables.

    Raises:
        ValueError: see ``coco_metrics``.
    """
    if iou_type not in ("bbox", "segm"):
        raise ValueError(f"iou_type must be 'bbox' or 'segm', got '{iou_type}'")
    dataset = checked_ground_truth(ground_truth, iou_type=iou_type)
    detections = checked_results(results, ground_truth, iou_type=iou_type)
    if image_ids is not None:
        known = {image["id"] for image in dataset["images"]}
        if unknown := sorted(set(image_ids) - known)[:5]:
            raise ValueError(f"image_ids has ids that the ground truth does not: {unknown}")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(dataset)
        # loadRes cannot read an empty list.
        found = (
            truth.loadRes(detections) if detections else _indexed({**dataset, "annotations": []})
        )
        evaluation = COCOeval(truth, found, iou_type)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _indexed(dataset: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _numbers(
    precision_TRKAM: NDArray[np.float64], recall_TKAM: NDArray[np.float64]
) -> dict[str, float]:
    """The twelve numbers of pycocotools' tables, or of a part of their categories."""
    values = (
        precision_TRKAM[..., 0, 2],
        precision_TRKAM[0, ..., 0, 2],
        precision_TRKAM[5, ..., 0, 2],
        *(precision_TRKAM[..., area, 2] for area in (1, 2, 3)),
        *(recall_TKAM[..., 0, limit] for limit in (0, 1, 2)),
        *(recall_TKAM[..., area, 2] for area in (1, 2, 3)),
    )
    return {
        name: float(np.mean(value[value > -1])) if np.any(value > -1) else -1.0
        for name, value in zip(METRIC_NAMES, values, strict=True)
    }


def _objects(evaluation: COCOeval) -> list[dict[str, Any]]:
    """The annotations of the evaluated images that are no crowd."""
    chosen = set(evaluation.params.imgIds)
    return [
        annotation
        for annotation in evaluation.cocoGt.dataset["annotations"]
        if annotation["image_id"] in chosen and not annotation["iscrowd"]
    ]


def _class_rows(evaluation: COCOeval) -> list[dict[str, Any]]:
    precision_TRKAM, recall_TKAM = evaluation.eval["precision"], evaluation.eval["recall"]
    num_objects = Counter(annotation["category_id"] for annotation in _objects(evaluation))
    return [
        {
            "category_id": category_id,
            "name": evaluation.cocoGt.cats[category_id].get("name", str(category_id)),
            "num_objects": num_objects[category_id],
            **_numbers(precision_TRKAM[:, :, k : k + 1], recall_TKAM[:, k : k + 1]),
        }
        for k, category_id in enumerate(evaluation.params.catIds)
    ]


def _image_rows(evaluation: COCOeval) -> list[dict[str, Any]]:
    parameters = evaluation.params
    categories_of: dict[Any, Counter[Any]] = {image_id: Counter() for image_id in parameters.imgIds}
    for annotation in _objects(evaluation):
        categories_of[annotation["image_id"]][annotation["category_id"]] += 1
    cell_KAI = np.arange(len(evaluation.evalImgs)).reshape(
        len(parameters.catIds), len(parameters.areaRng), len(parameters.imgIds)
    )
    rows = []
    for i, image_id in enumerate(parameters.imgIds):
        num_objects = categories_of[image_id]
        # Only categories that the image has: the others are -1 and count in no mean.
        chosen_K = [k for k, category in enumerate(parameters.catIds) if num_objects[category]]
        alone = copy.copy(evaluation)
        alone.params = copy.copy(parameters)
        alone.params.imgIds = [image_id]
        alone.params.catIds = [parameters.catIds[k] for k in chosen_K]
        alone._paramsEval = alone.params
        alone.evalImgs = [evaluation.evalImgs[cell] for cell in cell_KAI[chosen_K, :, i].ravel()]
        with contextlib.redirect_stdout(io.StringIO()):
            alone.accumulate()
        rows.append(
            {
                "image_id": image_id,
                "num_objects": num_objects.total(),
                **_numbers(alone.eval["precision"], alone.eval["recall"]),
            }
        )
    return rows
