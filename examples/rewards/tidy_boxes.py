"""A composed reward with a filter: the task's reward, a bonus for tidiness, junk left out.

See composed.toml beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardtune.datasets.example import Example
from rewardtune.tasks.detection.task import DetectedBox

MAX_SHARE = 0.5


def tidiness(predictions: Sequence[Sequence[DetectedBox]], example: Example) -> list[float]:
    """One minus the mean overlap (IoU) of two boxes, in [0, 1]; 1 for fewer than two boxes."""
    return [1.0 - _mean_overlap(boxes) for boxes in predictions]


def is_plausible(predictions: Sequence[Sequence[DetectedBox]], example: Example) -> list[bool]:
    """A filter: no single box may cover more than half of the image."""
    most = MAX_SHARE * example.height * example.width
    return [all(_area(box.xyxy) <= most for box in boxes) for boxes in predictions]


def _mean_overlap(boxes: Sequence[DetectedBox]) -> float:
    overlaps = [
        _overlap(one.xyxy, other.xyxy) for i, one in enumerate(boxes) for other in boxes[:i]
    ]
    return float(np.mean(overlaps)) if overlaps else 0.0


def _overlap(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (_area(one) + _area(other) - shared)


def _area(xyxy: tuple[float, float, float, float]) -> float:
    return (xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1])
