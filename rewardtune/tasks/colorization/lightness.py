"""What a picture keeps of the lightness that was given: a part to put beside the colour reward.

The colour reward does not look at lightness, and strong colours cost some of it: they are clipped
to what sRGB holds. A run that is to keep it says so in its reward:

    [reward]
    sum = { task = 1.0, lightness = 0.05 }

    [reward.parts.lightness]
    use = "rewardtune.tasks.colorization.lightness:lightness_decibels"

Axes: H height, W width, 3 channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.datasets.images import decode_image
from rewardtune.tasks.colorization.metric import lightness_psnr

HIGHEST = 60.0
"""Decibels of pictures that lose nothing, whose ratio would be infinite."""


def lightness_decibels(predictions: Sequence[NDArray[np.uint8]], example: Example) -> list[float]:
    """PSNR of CIELAB lightness of each picture [H, W, 3], at most ``HIGHEST``."""
    original = decode_image(example.image)
    return [min(lightness_psnr(picture, original), HIGHEST) for picture in predictions]
