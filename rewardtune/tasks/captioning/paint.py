"""Captions under their picture, for people to look at.

Axes: H height, W width.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MIN_SIDE = 384
_FONT_SIZE = 13
_LINE_HEIGHT = 18
_CHARACTER_WIDTH = 7
"""Of the default font at that size, on the wide side."""
_MARGIN = 6
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)


def paint_captions(image_HW3: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """The picture [H', W', 3] with the captions below it, one paragraph each.

    A small picture is enlarged by a whole number, so that the words stay readable beside it.
    """
    height, width = image_HW3.shape[:2]
    scale = max(1, math.ceil(_MIN_SIDE / max(height, width)))
    picture = Image.fromarray(image_HW3).resize(
        (width * scale, height * scale), Image.Resampling.NEAREST
    )
    per_line = max(1, (picture.width - 2 * _MARGIN) // _CHARACTER_WIDTH)
    lines = [line for caption in captions for line in textwrap.wrap(caption, per_line) or [""]]
    page = Image.new(
        "RGB", (picture.width, picture.height + 2 * _MARGIN + _LINE_HEIGHT * len(lines)), _PAPER
    )
    page.paste(picture, (0, 0))
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=_FONT_SIZE)
    for number, line in enumerate(lines):
        top = picture.height + _MARGIN + number * _LINE_HEIGHT
        pen.text((_MARGIN, top), line, fill=_INK, font=font)
    return np.asarray(page)
