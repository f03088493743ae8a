"""Annotated pictures as stage I takes them.

Axes: N pictures, H height, W width, C colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.datasets.example import Dataset, Example
from rewardtune.datasets.frame import Framed, Square, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import View
from rewardtune.tasks.colorization import codec as colorization
from rewardtune.tasks.panoptic import codec as panoptic

StageOneTask = Literal["panoptic", "colorization"]


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """What a batch of pictures looks like to both sides of stage I."""

    labels: Mapping[str, Tensor]
    images_NHWC: Tensor
    """The context, in [-1, 1]; grey for colorization."""

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def rows(self, rows: slice, device: torch.device) -> LabelledBatch:
        """Some of the pictures, on a device."""
        return LabelledBatch(
            {name: label[rows].to(device) for name, label in self.labels.items()},
            self.images_NHWC[rows].to(device),
        )


def labelled_batch(
    task: StageOneTask, dataset: Dataset, seen: Sequence[tuple[int, View]], *, input_size: int
) -> LabelledBatch:
    """Examples through their views.

    Raises:
        ValueError: an example that cannot be read, or has no annotation for the task.
    """
    rows = [
        _labelled(task, dataset.example(index), view, input_size=input_size) for index, view in seen
    ]
    names = rows[0][0].keys()
    return LabelledBatch(
        {name: torch.from_numpy(np.stack([labels[name] for labels, _ in rows])) for name in names},
        torch.from_numpy(np.stack([image for _, image in rows])),
    )


def _labelled(
    task: StageOneTask, example: Example, view: View, *, input_size: int
) -> tuple[Mapping[str, NDArray[Any]], NDArray[np.float32]]:
    framed = Framed.of(example, view, Square(side=input_size))
    image = view_image(decode_image(example.image), framed.frame)
    if task == "panoptic":
        return panoptic.label_maps(framed), image
    return colorization.label_maps(image), colorization.grey(image)
