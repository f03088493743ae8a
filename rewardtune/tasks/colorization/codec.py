"""Pictures in a view with their colours, and without: what stage I encodes and what it sees.

Axes: H height, W width, 3 colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewardtune.datasets.frame import Frame, Framed, view_image
from rewardtune.datasets.images import decode_image
from rewardtune.tasks.uvim.config import COLOUR

_GREY_WEIGHTS = np.array([0.2989, 0.5870, 0.1140], dtype=np.float32)


def colour_image(framed: Framed) -> NDArray[np.float32]:
    """The picture through the view [H, W, 3] in [-1, 1]."""
    return view_image(decode_image(framed.example.image), framed.frame)


def label_maps(image_HW3: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A picture as stage I's labels."""
    return {COLOUR: image_HW3}


def grey(image_HW3: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same picture, or pictures, without colour: three equal channels in [-1, 1].

    In steps of 1/255, as if it had been stored as a picture, but for grey that is exactly the
    middle: that is where a view shows no image.

    Source: TensorFlow's ``rgb_to_grayscale``, which UViM's colorization uses.
    """
    # Level by level and not by a product of matrices, whose bits depend on the shape.
    levels = (image_HW3 + np.float32(1)) * np.float32(127.5)
    weighted = levels * _GREY_WEIGHTS
    grey_HW = np.rint(weighted[..., 0] + weighted[..., 1] + weighted[..., 2])
    is_outside = (image_HW3 == 0).all(axis=-1)
    value_HW = np.where(is_outside, np.float32(0), grey_HW / np.float32(127.5) - np.float32(1))
    return np.repeat(value_HW[..., None].astype(np.float32), 3, axis=-1)


def in_image(picture_HW3: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint8]:
    """A picture of the view as one of the example's image; white where the view does not reach."""
    laid, size = frame.geometry, frame.framing.side
    y0, y1 = max(0, laid.top), min(size, laid.top + laid.height)
    x0, x1 = max(0, laid.left), min(size, laid.left + laid.width)
    resized = np.full((laid.height, laid.width, 3), 255, dtype=np.uint8)
    resized[y0 - laid.top : y1 - laid.top, x0 - laid.left : x1 - laid.left] = picture_HW3[
        y0:y1, x0:x1
    ]
    height, width = laid.source_height, laid.source_width
    if (laid.height, laid.width) != (height, width):
        resized = np.asarray(
            Image.fromarray(resized).resize((width, height), Image.Resampling.BILINEAR)
        )
    whole = np.full((frame.height, frame.width, 3), 255, dtype=np.uint8)
    whole[
        laid.source_top : laid.source_top + height, laid.source_left : laid.source_left + width
    ] = resized
    return whole[:, ::-1] if frame.view.flip else whole
