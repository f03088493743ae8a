"""An input-output check: is the output one that this input allows?

Every predicted object must be of a class that the image is annotated with. As a gate, it takes
the reward from rollouts that name something that is not there; see known_classes.toml.
"""

from __future__ import annotations

from collections.abc import Sequence

from rewardtune.datasets.example import Example
from rewardtune.tasks.detection.task import DetectedBox


def names_what_is_there(
    predictions: Sequence[Sequence[DetectedBox]], example: Example
) -> list[bool]:
    """Whether each prediction has only classes of the annotation; True for an empty one."""
    there = set(example.category_N.tolist())
    return [all(box.category in there for box in boxes) for boxes in predictions]
