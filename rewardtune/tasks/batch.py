"""The pictures of several examples as one array.

Axes: G examples, H height, W width, C colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Framed, Framing, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.records import View
from rewardtune.tasks.task import InputTask, Task


def images_in_view(
    dataset: Dataset, seen: Sequence[tuple[int, View]], *, task: Task, framing: Framing
) -> NDArray[np.float32]:
    """Pictures of examples through their views, [G, side, side, 3] in [-1, 1].

    As the task's policy is shown them: without colour, say.

    Raises:
        ValueError: a picture cannot be decoded; names its example.
    """
    images_GHWC = np.empty((len(seen), framing.side, framing.side, 3), dtype=np.float32)
    for row, (index, view) in enumerate(seen):
        example = dataset.example(index)
        try:
            image = decode_image(example.image)
        except ValueError as error:
            raise ValueError(
                f"image {example.file_name} (id {example.image_id}, example {index}): {error}"
            ) from error
        images_GHWC[row] = view_image(image, Framed.of(example, view, framing).frame)
    return task.input_images(images_GHWC) if isinstance(task, InputTask) else images_GHWC
