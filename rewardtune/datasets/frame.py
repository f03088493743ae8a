"""How an image and its boxes are laid into what a policy sees, and back.

Axes: H height, W width, C colours, N boxes. Pixel boxes are x0, y0, x1, y1; boxes relative to
what is seen are y0, x0, y1, x1 with 0 and 1 at its borders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt

from rewardtune.datasets.example import Example
from rewardtune.records import View, Window


class Square(BaseModel):
    """A policy that sees pictures laid into a square, padded or stretched as their view says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["square"] = "square"
    side: PositiveInt
    """In pixels."""

    def frame(self, view: View, *, height: int, width: int) -> Frame:
        """Where an image of ``height`` x ``width`` pixels lies."""
        return Frame(self, view, height=height, width=width)


Framing = Square
"""How a policy wants its pictures; JSON that tells by its kind which one it is."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where one image lies in what its policy sees: all that boxes need to be carried over."""

    framing: Framing
    view: View
    height: int
    """Of the image, in its pixels."""
    width: int

    @property
    def geometry(self) -> Geometry:
        """
        Raises:
            ValueError: a side is not positive.
        """
        return _geometry(self)

    def to_frame(self, xyxy_N4: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel boxes of the image as relative boxes [N, 4] of what is seen.

        Boxes that the view cuts leave [0, 1]; ``clip_boxes`` trims them.
        """
        laid = self.geometry
        x0_N, y0_N, x1_N, y1_N = np.asarray(xyxy_N4, dtype=np.float64).reshape(-1, 4).T
        if self.view.flip:
            x0_N, x1_N = self.width - x1_N, self.width - x0_N
        return (
            np.stack(
                [
                    (y0_N - laid.source_top) * laid.scale_y + laid.top,
                    (x0_N - laid.source_left) * laid.scale_x + laid.left,
                    (y1_N - laid.source_top) * laid.scale_y + laid.top,
                    (x1_N - laid.source_left) * laid.scale_x + laid.left,
                ],
                axis=1,
            )
            / self.framing.side
        )

    def to_image(self, relative_N4: NDArray[np.float64]) -> NDArray[np.float64]:
        """Undo ``to_frame``: relative boxes to pixel boxes [N, 4], clipped to the image."""
        laid, side = self.geometry, self.framing.side
        y0_N, x0_N, y1_N, x1_N = np.asarray(relative_N4, dtype=np.float64).reshape(-1, 4).T * side
        y0_N, y1_N = ((y_N - laid.top) / laid.scale_y + laid.source_top for y_N in (y0_N, y1_N))
        x0_N, x1_N = ((x_N - laid.left) / laid.scale_x + laid.source_left for x_N in (x0_N, x1_N))
        if self.view.flip:
            x0_N, x1_N = self.width - x1_N, self.width - x0_N
        xyxy_N4 = np.stack([x0_N, y0_N, x1_N, y1_N], axis=1)
        corner = np.array([self.width, self.height, self.width, self.height], dtype=np.float64)
        return np.clip(xyxy_N4, 0.0, corner)


@dataclass(frozen=True, slots=True)
class Framed:
    """An example as its policy sees it."""

    example: Example
    frame: Frame

    @classmethod
    def of(cls, example: Example, view: View, framing: Framing) -> Framed:
        """The example through one of its views."""
        frame = framing.frame(view, height=example.height, width=example.width)
        return cls(example, frame)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the (flipped) image lies in the input.

    ``input = (image - (source_top, source_left)) * scale + (top, left)``.
    """

    height: int
    """Of the resized image in input pixels; may exceed the input."""
    width: int
    top: int
    """Input row of the first row shown; negative where it is cut off."""
    left: int
    scale_y: float
    scale_x: float
    source_top: int
    """The part of the image that is resized, in its pixels: all of it, or the view's window."""
    source_left: int
    source_height: int
    source_width: int


def _geometry(frame: Frame) -> Geometry:
    """Lay the image into the square.

    The resized sides are whole pixels, so the two scales may differ in the last per cent; the
    boxes use the same two scales, so they stay on their objects. So are those of a window.
    """
    view, height, width, side = frame.view, frame.height, frame.width, frame.framing.side
    if min(height, width) < 1:
        raise ValueError(
            f"sides must be at least 1 pixel, got image {height} x {width}, input {side}"
        )
    if view.window is not None:
        source_height, source_width = _window_sides(view.window, height=height, width=width)
        return Geometry(
            height=side,
            width=side,
            top=0,
            left=0,
            scale_y=side / source_height,
            scale_x=side / source_width,
            source_top=round(view.offset_y * (height - source_height)),
            source_left=round(view.offset_x * (width - source_width)),
            source_height=source_height,
            source_width=source_width,
        )
    ratio = view.scale * side / max(height, width)
    resized_height, resized_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    return Geometry(
        height=resized_height,
        width=resized_width,
        top=round(view.offset_y * (side - resized_height)),
        left=round(view.offset_x * (side - resized_width)),
        scale_y=resized_height / height,
        scale_x=resized_width / width,
        source_top=0,
        source_left=0,
        source_height=height,
        source_width=width,
    )


def _window_sides(window: Window, *, height: int, width: int) -> tuple[int, int]:
    """Height and width of a window of an image, in whole pixels.

    Source: TensorFlow's ``sample_distorted_bounding_box``, which Inception crops come from: at a
    given aspect it draws the height evenly among those that fit. It tries other aspects where
    none fits, and gives up after 100.
    """
    if window.aspect == 0.0:
        return height, width
    lowest = math.sqrt(window.min_area * height * width / window.aspect)
    highest = min(height, width / window.aspect)
    if lowest > highest:
        return height, width
    chosen = lowest + window.size * (highest - lowest)
    return max(1, round(chosen)), min(width, max(1, round(chosen * window.aspect)))


def view_image(image_HWC: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """Show an image as its policy sees it: [side, side, 3] in [-1, 1].

    Bilinear, with antialiasing where it shrinks. Padding is 0: mid grey, the middle of the
    range. Pillow resizes in integers, so the result is the same on every CPU.
    """
    side = frame.framing.side
    # By its own sides, whatever its annotation says of them.
    height, width = image_HWC.shape[:2]
    laid = replace(frame, height=height, width=width).geometry
    if frame.view.flip:
        image_HWC = image_HWC[:, ::-1]
    height, width = laid.source_height, laid.source_width
    image_HWC = image_HWC[
        laid.source_top : laid.source_top + height, laid.source_left : laid.source_left + width
    ]

    # The part of the input that the image covers, and the part of the image seen there.
    y0, y1 = max(0, laid.top), min(side, laid.top + laid.height)
    x0, x1 = max(0, laid.left), min(side, laid.left + laid.width)
    if (laid.height, laid.width) == (height, width):
        seen_HWC = image_HWC[y0 - laid.top : y1 - laid.top, x0 - laid.left : x1 - laid.left]
    else:
        box = (
            (x0 - laid.left) / laid.scale_x,
            (y0 - laid.top) / laid.scale_y,
            min((x1 - laid.left) / laid.scale_x, width),
            min((y1 - laid.top) / laid.scale_y, height),
        )
        picture = Image.fromarray(np.ascontiguousarray(image_HWC))
        seen = picture.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box)
        seen_HWC = np.asarray(seen)

    if seen_HWC.shape[:2] == (side, side):
        return _values(seen_HWC)
    input_HWC = np.zeros((side, side, 3), dtype=np.float32)
    input_HWC[y0:y1, x0:x1] = _values(seen_HWC)
    return input_HWC


def _values(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    # pixel / 255 * 2 - 1, rounded in float32 at each step, as the published code does.
    values_HWC = pixels_HWC.astype(np.float32)
    values_HWC /= 255
    values_HWC *= 2
    values_HWC -= 1
    return values_HWC


@dataclass(frozen=True, slots=True)
class ClippedBoxes:
    """Relative boxes trimmed to the input, and how much of each was left."""

    boxes_N4: NDArray[np.float64]
    kept_N: NDArray[np.float64]
    """Area inside the input over area; 0 for a box without area."""


def clip_boxes(relative_N4: NDArray[np.float64]) -> ClippedBoxes:
    """Trim relative boxes to [0, 1], so that a task can drop those that are mostly outside."""
    boxes_N4 = np.clip(relative_N4, 0.0, 1.0)
    area_N = _area(relative_N4)
    inside_N = _area(boxes_N4)
    kept_N = np.divide(inside_N, area_N, out=np.zeros_like(area_N), where=area_N > 0)
    return ClippedBoxes(boxes_N4=boxes_N4, kept_N=kept_N)


def _area(relative_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    area_N: NDArray[np.float64] = np.prod(relative_N4[:, 2:] - relative_N4[:, :2], axis=1)
    return area_N
