"""Pictures with boxes on them, for people to look at.

Axes: H, W, C of a picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rewardtune.datasets.example import Category, Example

_FONT_SIZE = 13
_GAP = 8
_TITLE_HEIGHT = 22
_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_GOLDEN_RATIO = 0.618034


@dataclass(frozen=True, slots=True)
class NamedBox:
    """A box in pixels of its picture, and the words on it."""

    xyxy: tuple[float, float, float, float]
    label: int
    """Index of the category: what decides the colour."""
    text: str


def annotated_boxes(example: Example, categories: Sequence[Category]) -> list[NamedBox]:
    """What the annotation says is there."""
    return [
        NamedBox(_xyxy(xywh), int(label), categories[label].name)
        for xywh, label in zip(example.xywh_N4.tolist(), example.category_N, strict=True)
    ]


def predicted_boxes(
    records: Sequence[Mapping[str, Any]],
    categories: Sequence[Category],
    *,
    min_score: float = 0.0,
) -> list[NamedBox]:
    """COCO results of one image as boxes with their scores, the best painted last."""
    label_of = {category.id: label for label, category in enumerate(categories)}
    boxes = []
    for record in sorted(records, key=lambda record: float(record["score"])):
        if record["score"] >= min_score:
            label = label_of[record["category_id"]]
            text = f"{categories[label].name} {record['score']:.2f}"
            boxes.append(NamedBox(_xyxy(record["bbox"]), label, text))
    return boxes


def paint_boxes(
    image_HWC: NDArray[np.uint8], boxes: Sequence[NamedBox], *, min_side: int = 384
) -> Image.Image:
    """The picture with its boxes.

    A picture whose longer side is below ``min_side`` is enlarged by a whole number, so that
    the words can be read.
    """
    picture = enlarged(image_HWC, min_side=min_side)
    scale = picture.width // image_HWC.shape[1]
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=_FONT_SIZE)
    for box in boxes:
        x0, y0, x1, y1 = (side * scale for side in box.xyxy)
        edges = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        canvas.rectangle(edges, outline=_colour(box.label), width=2)
    for box in boxes:  # above all edges
        x0, y0 = (side * scale for side in box.xyxy[:2])
        colour = _colour(box.label)
        _write_tag(canvas, box.text, x0, y0, colour=colour, font=font, size=picture.size)
    return picture


def enlarged(image_HWC: NDArray[np.uint8], *, min_side: int = 384) -> Image.Image:
    """The picture, enlarged by a whole number where its longer side is below ``min_side``."""
    height, width = image_HWC.shape[:2]
    scale = max(1, math.ceil(min_side / max(height, width)))
    return Image.fromarray(image_HWC).resize(
        (width * scale, height * scale), Image.Resampling.NEAREST
    )


def side_by_side(panels: Mapping[str, Image.Image]) -> Image.Image:
    """Pictures in one row, each under its title."""
    return picture_grid([list(panels.values())], titles=list(panels))


def picture_grid(
    rows: Sequence[Sequence[Image.Image]], *, titles: Sequence[str] = ()
) -> Image.Image:
    """Rows of pictures on white paper, with a title over each column.

    Args:
        rows: of equal length; pictures may differ in size.
        titles: one per column, or none.
    """
    width_of = [max(row[column].width for row in rows) for column in range(len(rows[0]))]
    height_of = [max(picture.height for picture in row) for row in rows]
    top = _GAP + (_TITLE_HEIGHT if titles else 0)
    paper = Image.new(
        "RGB",
        (sum(width_of) + _GAP * (len(width_of) + 1), top + sum(height_of) + _GAP * len(height_of)),
        _PAPER,
    )
    canvas = ImageDraw.Draw(paper)
    font = ImageFont.load_default(size=_FONT_SIZE + 2)
    left = _GAP
    for column, width in enumerate(width_of):
        if titles:
            canvas.text((left, _GAP - 2), titles[column], fill=_INK, font=font)
        y = top
        for row, height in zip(rows, height_of, strict=True):
            paper.paste(row[column], (left, y))
            y += height + _GAP
        left += width + _GAP
    return paper


def _write_tag(
    canvas: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    *,
    colour: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """Words on the box's upper edge, moved as far as needed to stay inside the picture."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    width, height = right - left + 4, bottom - top + 4
    x = min(max(x, 0), max(0, size[0] - width))
    y = min(max(y - height, 0), max(0, size[1] - height))
    canvas.rectangle((x, y, x + width, y + height), fill=colour)
    canvas.text((x + 2 - left, y + 2 - top), text, fill=_INK, font=font)


def _colour(label: int) -> tuple[int, int, int]:
    """Light colours, far apart for neighbouring labels."""
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1.0, 0.65, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _xyxy(xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = xywh
    return x, y, x + width, y + height
