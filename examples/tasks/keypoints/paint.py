"""Objects as four joined points on their picture."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

MIN_SIDE = 384


def paint_points(
    image_HW3: NDArray[np.uint8], objects: Iterable[tuple[int, str, Sequence[tuple[float, float]]]]
) -> NDArray[np.uint8]:
    """The picture [H, W, 3], enlarged where it is small.

    Args:
        objects: class, words, and points x, y of each.
    """
    height, width = image_HW3.shape[:2]
    scale = max(1, math.ceil(MIN_SIDE / max(height, width)))
    size = (width * scale, height * scale)
    picture = Image.fromarray(image_HW3).resize(size, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(picture)
    for category, words, points in objects:
        rgb = colorsys.hsv_to_rgb(category * 0.618 % 1.0, 0.7, 1.0)
        colour = tuple(round(255 * each) for each in rgb)
        corners = [(x * scale, y * scale) for x, y in points]
        pen.line([*corners, corners[0]], fill=colour, width=2)
        for x, y in corners:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
        pen.text((corners[0][0] + 6, max(0, corners[0][1] - 14)), words, fill=colour)
    return np.asarray(picture)
