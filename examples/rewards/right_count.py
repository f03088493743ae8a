"""A plain function: rewarded for predicting as many objects as there are.

In a run's config, with this folder on PYTHONPATH::

    reward = "right_count:right_count"
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.tasks.detection.task import DetectedBox


def right_count(
    predictions: Sequence[Sequence[DetectedBox]], example: Example
) -> NDArray[np.float64]:
    """Minus the objects that are too many or too few, crowds left out; at best 0."""
    num_there = int((~example.is_crowd_N).sum())
    return np.array([-abs(len(boxes) - num_there) for boxes in predictions], dtype=np.float64)
