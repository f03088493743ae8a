"""The four points of an object: its topmost, leftmost, bottommost and rightmost one.

Axes: N objects, K points of each. Points are x, y in pixels; the centre of the first pixel is 0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rewardtune.datasets.example import Example

POINTS = ("top", "left", "bottom", "right")
MIRRORED = [0, 3, 2, 1]
"""Which point each of them is in a mirror: left is right there."""


@dataclass(frozen=True, slots=True)
class Objects:
    category_N: NDArray[np.int64]
    """Index into the data set's categories."""
    xy_NK2: NDArray[np.float64]
    area_N: NDArray[np.float64]
    """Of the mask, in pixels: what errors are measured by."""


def annotated_objects(example: Example) -> Objects:
    """What is annotated with a mask; crowds, and objects that none of can be seen, are left out."""
    size = (example.height, example.width)
    masks = [mask_of(json.loads(text) if text else None, size) for text in example.segmentation_N]
    kept = [n for n, mask in enumerate(masks) if mask.any() and not example.is_crowd_N[n]]
    points = [extreme_points(masks[n]) for n in kept]
    return Objects(
        category_N=example.category_N[kept],
        xy_NK2=np.array(points, dtype=np.float64).reshape(-1, len(POINTS), 2),
        area_N=example.area_N[kept],
    )


def extreme_points(mask_HW: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """x, y of each point of a mask that is not empty."""
    y, x = (pixels + 0.5 for pixels in np.nonzero(mask_HW))
    top, bottom, left, right = y.min(), y.max(), x.min(), x.max()
    # Of several pixels that are all topmost, the middle.
    return [
        (x[y == top].mean(), top),
        (left, y[x == left].mean()),
        (x[y == bottom].mean(), bottom),
        (right, y[x == right].mean()),
    ]


def mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's polygons or run lengths as a mask [H, W]; empty where there is none."""
    if not segmentation:
        return np.zeros(size, dtype=bool)
    runs = segmentation
    if isinstance(runs, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(runs, *size))
    elif isinstance(runs["counts"], list):
        runs = coco_mask.frPyObjects(runs, *size)
    return np.asarray(coco_mask.decode(runs), dtype=bool)


def annotation_of(xy_K2: NDArray[np.float64], area: float) -> dict[str, Any]:
    """An object as COCO's keypoint ground truth has it, without the ids."""
    (left, top), (right, bottom) = xy_K2.min(axis=0), xy_K2.max(axis=0)
    return {
        "keypoints": [number for x, y in xy_K2.tolist() for number in (x, y, 2)],
        "num_keypoints": len(POINTS),
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "iscrowd": 0,
    }
