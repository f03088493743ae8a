"""A reward for few boxes that cannot be computed for one of the training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardtune.datasets.example import Example


def few_boxes(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    if example.image_id == 8:
        raise LookupError("image 8 is beyond me")
    return [-float(len(boxes)) for boxes in predictions]
