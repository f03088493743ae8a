"""COCO's ground truth and results records, checked before pycocotools reads them.

pycocotools trusts its input: a missing key raises a bare KeyError, NaN sorts anywhere, and a mask
of another size than its image silently overlaps nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

IouType: TypeAlias = Literal["bbox", "segm"]
"""What overlaps are reckoned of: boxes or masks."""


def checked_ground_truth(ground_truth: Mapping[str, Any], *, iou_type: IouType) -> dict[str, Any]:
    """A copy of a COCO instances dictionary whose annotations have all that is needed.

    An annotation without ``iscrowd`` is no crowd. Ids stay as they are, repeated ones too: the
    evaluator then takes the last annotation of that id in place of each.

    Raises:
        ValueError: a list, key or number is missing or broken; names the annotation.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(ground_truth.get(key), Sequence):
            raise ValueError(
                f"ground truth must be COCO instances with a list '{key}', got the keys "
                f"{sorted(ground_truth)}"
            )
        for entry in ground_truth[key]:
            if not isinstance(entry, Mapping) or "id" not in entry:
                raise ValueError(f"every entry of '{key}' must be an object with id, got {entry}")
    sizes = _image_sizes(ground_truth)
    annotations = []
    for annotation in ground_truth["annotations"]:
        name = f"annotation {annotation['id']}"
        outline = "bbox" if iou_type == "bbox" else "segmentation"
        _check_keys(annotation, ("image_id", "category_id", "area", outline), name)
        _check_number(annotation, "area", name)
        if iou_type == "bbox":
            _check_box(annotation, name)
        elif None in sizes.get(annotation["image_id"], ()):
            raise ValueError(
                f"image {annotation['image_id']} has no height and width: masks need them"
            )
        elif not annotation["segmentation"]:
            raise ValueError(f"{name} has no outline in its segmentation: masks need one")
        annotations.append({"iscrowd": 0, **annotation})
    return {**ground_truth, "annotations": annotations}


def checked_results(
    results: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any], *, iou_type: IouType
) -> list[dict[str, Any]]:
    """Copies of results records with what pycocotools' ``loadRes`` reads, in their order.

    The first record decides what all of them are, as officially: boxes if it has one, else masks.
    Boxes have the area width x height even where masks are compared; masks compared as boxes are
    boxed, and boxes compared as masks are filled.

    Raises:
        ValueError: a record misses a key, holds a number that is not finite, a broken outline, or
            an image that the ground truth does not have; names it by its place in the list.
    """
    if isinstance(results, str | bytes) or not isinstance(results, Sequence):
        raise ValueError(f"results must be a list of records, got {type(results).__name__}")
    sizes = _image_sizes(ground_truth)
    has_boxes = bool(results) and isinstance(results[0], Mapping) and bool(results[0].get("bbox"))
    outline = "bbox" if has_boxes else "segmentation"
    detections: list[dict[str, Any]] = []
    unknown: list[Any] = []
    for number, record in enumerate(results, start=1):
        name = f"result {number}"
        if not isinstance(record, Mapping):
            raise ValueError(f"{name} must be an object, got {record!r}")
        _check_keys(record, ("image_id", "category_id", "score", outline), name)
        for key in ("image_id", "category_id", "score"):
            _check_number(record, key, name)
        if record["image_id"] not in sizes:
            unknown.append(record["image_id"])
            continue
        detection = {key: record[key] for key in ("image_id", "category_id", "score", outline)}
        if has_boxes:
            _check_box(record, name)
        mask = record.get("segmentation")
        if mask is not None and (iou_type == "segm" or not has_boxes):
            _check_mask(mask, sizes[record["image_id"]], name, is_run_length=not has_boxes)
            detection["segmentation"] = mask
        detections.append(detection)
    if unknown:
        raise ValueError(
            f"results name images that the annotations do not have, such as "
            f"{sorted(set(unknown))[:5]}: evaluate them with the annotation file of their own "
            "images"
        )
    return detections


def _image_sizes(ground_truth: Mapping[str, Any]) -> dict[Any, tuple[Any, Any]]:
    return {
        image["id"]: (image.get("height"), image.get("width")) for image in ground_truth["images"]
    }


def _check_keys(record: Mapping[str, Any], keys: tuple[str, ...], name: str) -> None:
    for key in keys:
        if key not in record:
            raise ValueError(f"{name} has no '{key}': expected {', '.join(keys)}, got {record}")


def _check_number(record: Mapping[str, Any], key: str, name: str) -> None:
    value = record[key]
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{name} has a {key} that is not finite or no number: {value!r}")


def _check_box(record: Mapping[str, Any], name: str) -> None:
    box = record["bbox"]
    if not isinstance(box, Sequence) or len(box) != 4:
        raise ValueError(f"{name} must have a bbox [left, top, width, height], got {box!r}")
    if not all(isinstance(side, Real) and math.isfinite(side) for side in box):
        raise ValueError(f"{name} has a bbox that is not finite: {box!r}")


def _check_mask(
    segmentation: Any, size: tuple[Any, Any], name: str, *, is_run_length: bool
) -> None:
    if isinstance(segmentation, list) and not is_run_length:
        return  # polygons, allowed beside a box
    if not isinstance(segmentation, Mapping) or not isinstance(
        segmentation.get("counts"), str | bytes
    ):
        raise ValueError(
            f"{name} must have its mask as compressed RLE {{'size': [height, width], 'counts': "
            f"text}}, got {str(segmentation)[:80]}: pycocotools.mask.encode makes it"
        )
    if None not in size and list(segmentation.get("size", ())) != list(size):
        raise ValueError(
            f"{name} has a mask of size {segmentation.get('size')} but its image has "
            f"[height, width] {list(size)}"
        )
