"""Greedy non-maximum suppression of results records, as detectors without our reward need it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def suppress_duplicates(
    results: Sequence[Mapping[str, Any]], *, iou_threshold: float
) -> list[dict[str, Any]]:
    """Drop boxes that overlap a better one of the same image and category.

    Args:
        results: COCO results records, bbox as x, y, width, height.
        iou_threshold: overlap above which the lower score goes, in (0, 1].
    """
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, record in enumerate(results):
        cells[record["image_id"], record["category_id"]].append(index)
    kept: list[int] = []
    for indices in cells.values():
        best_first = sorted(indices, key=lambda i: -results[i]["score"])
        chosen: list[int] = []
        for index in best_first:
            if all(
                _iou(results[index]["bbox"], results[other]["bbox"]) <= iou_threshold
                for other in chosen
            ):
                chosen.append(index)
        kept += chosen
    return [dict(results[index]) for index in sorted(kept)]


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(np.add(a[:2], a[2:]), np.add(b[:2], b[2:]))
    overlap = float(np.prod(np.maximum(high - low, 0.0)))
    union = a[2] * a[3] + b[2] * b[3] - overlap
    return overlap / union if union > 0 else 0.0
