"""How an image and its boxes are laid into the model's square input, and back.

Axes: H height, W width, C colours, N boxes. Pixel boxes are x0, y0, x1, y1; boxes relative to
the input are y0, x0, y1, x1 with 0 and 1 at its borders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from rewardtune.records import View, Window


class ViewConfig(BaseModel):
    """Which views a run draws: how it lays images into the input, flips, zooms and crops them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip_probability: float = Field(default=0.0, ge=0.0, le=1.0)
    min_scale: float = Field(default=1.0, gt=0.0)
    max_scale: float = Field(default=1.0, gt=0.0)
    """Scales are uniform in [min_scale, max_scale]; 1 fits the longer side to the input."""

    keep_aspect: bool = True
    """Pad what an image of another aspect leaves of the square input; false: stretch the image to
    fill it, as UViM does."""

    min_crop_area: float = Field(default=1.0, gt=0.0, le=1.0)
    """Without keep_aspect: show a random part of the image that has at least this share of its
    area, as in Inception's training; 1: all of it."""

    min_crop_aspect: float = Field(default=0.75, gt=0.0)
    max_crop_aspect: float = Field(default=1.33, gt=0.0)
    """Width over height of the part, in pixels of the image: uniform between the two."""

    @model_validator(mode="after")
    def _fits(self) -> ViewConfig:
        for lower, upper in (("min_scale", "max_scale"), ("min_crop_aspect", "max_crop_aspect")):
            low, high = getattr(self, lower), getattr(self, upper)
            if low > high:
                raise ValueError(f"{lower} {low} is larger than {upper} {high}: swap them")
        if not self.keep_aspect and (self.min_scale, self.max_scale) != (1.0, 1.0):
            raise ValueError(
                "min_scale and max_scale need keep_aspect = true: an image that fills the input "
                "is zoomed into by min_crop_area"
            )
        crop = (self.min_crop_area, self.min_crop_aspect, self.max_crop_aspect)
        if self.keep_aspect and crop != (1.0, 0.75, 1.33):
            raise ValueError(
                "min_crop_area, min_crop_aspect and max_crop_aspect need keep_aspect = false: an "
                "image that keeps its aspect is zoomed into by max_scale"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Runs of before there was anything else keep the identity that they were started with.
        values: dict[str, Any] = serialize(self)
        return {
            name: value
            for name, value in values.items()
            if name in _FIRST_SETTINGS or not self.keep_aspect
        }

    @property
    def whole(self) -> View:
        """The view in which everything is measured: all of the image, unflipped."""
        return View(window=None if self.keep_aspect else Window())

    def sample(self, rng: np.random.Generator) -> View:
        # All numbers are drawn whatever the settings, so that turning flips on does not change
        # the scales of a run.
        flip, size, offset_y, offset_x, aspect = (float(u) for u in rng.random(5))
        flips = flip < self.flip_probability
        if self.min_crop_area < 1.0:
            window = Window(
                aspect=self.min_crop_aspect
                + aspect * (self.max_crop_aspect - self.min_crop_aspect),
                min_area=self.min_crop_area,
                size=size,
            )
            return View(flip=flips, offset_y=offset_y, offset_x=offset_x, window=window)
        scale = self.min_scale + size * (self.max_scale - self.min_scale)
        if scale == 1.0:
            # Only jittered views are moved about: the plain one pads at the bottom and right.
            return replace(self.whole, flip=flips)
        return View(flip=flips, scale=scale, offset_y=offset_y, offset_x=offset_x)


_FIRST_SETTINGS = ("flip_probability", "min_scale", "max_scale")


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


def geometry(view: View, *, height: int, width: int, input_size: int) -> Geometry:
    """Lay an image of ``height`` x ``width`` pixels into a square input.

    The resized sides are whole pixels, so the two scales may differ in the last per cent; the
    boxes use the same two scales, so they stay on their objects. So are those of a window.

    Raises:
        ValueError: a side is not positive.
    """
    if min(height, width, input_size) < 1:
        raise ValueError(
            f"sides must be at least 1 pixel, got image {height} x {width}, input {input_size}"
        )
    if view.window is not None:
        source_height, source_width = _window_sides(view.window, height=height, width=width)
        return Geometry(
            height=input_size,
            width=input_size,
            top=0,
            left=0,
            scale_y=input_size / source_height,
            scale_x=input_size / source_width,
            source_top=round(view.offset_y * (height - source_height)),
            source_left=round(view.offset_x * (width - source_width)),
            source_height=source_height,
            source_width=source_width,
        )
    ratio = view.scale * input_size / max(height, width)
    resized_height, resized_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    return Geometry(
        height=resized_height,
        width=resized_width,
        top=round(view.offset_y * (input_size - resized_height)),
        left=round(view.offset_x * (input_size - resized_width)),
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


def view_image(image_HWC: NDArray[np.uint8], view: View, *, input_size: int) -> NDArray[np.float32]:
    """Show an image through a view: [input_size, input_size, 3] in [-1, 1].

    Bilinear, with antialiasing where it shrinks. Padding is 0: mid grey, the middle of the
    range. Pillow resizes in integers, so the result is the same on every CPU.
    """
    height, width = image_HWC.shape[:2]
    laid = geometry(view, height=height, width=width, input_size=input_size)
    if view.flip:
        image_HWC = image_HWC[:, ::-1]
    height, width = laid.source_height, laid.source_width
    image_HWC = image_HWC[
        laid.source_top : laid.source_top + height, laid.source_left : laid.source_left + width
    ]

    # The part of the input that the image covers, and the part of the image seen there.
    y0, y1 = max(0, laid.top), min(input_size, laid.top + laid.height)
    x0, x1 = max(0, laid.left), min(input_size, laid.left + laid.width)
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

    if seen_HWC.shape[:2] == (input_size, input_size):
        return _values(seen_HWC)
    input_HWC = np.zeros((input_size, input_size, 3), dtype=np.float32)
    input_HWC[y0:y1, x0:x1] = _values(seen_HWC)
    return input_HWC


def _values(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    # pixel / 255 * 2 - 1, rounded in float32 at each step, as the published code does.
    values_HWC = pixels_HWC.astype(np.float32)
    values_HWC /= 255
    values_HWC *= 2
    values_HWC -= 1
    return values_HWC


def boxes_in_view(
    xyxy_N4: NDArray[np.float64], view: View, *, height: int, width: int, input_size: int
) -> NDArray[np.float64]:
    """Pixel boxes of the image as relative boxes [N, 4] of the input.

    Boxes that the view cuts leave [0, 1]; ``clip_boxes`` trims them.
    """
    laid = geometry(view, height=height, width=width, input_size=input_size)
    x0_N, y0_N, x1_N, y1_N = np.asarray(xyxy_N4, dtype=np.float64).reshape(-1, 4).T
    if view.flip:
        x0_N, x1_N = width - x1_N, width - x0_N
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
        / input_size
    )


def boxes_to_pixels(
    relative_N4: NDArray[np.float64], view: View, *, height: int, width: int, input_size: int
) -> NDArray[np.float64]:
    """Undo ``boxes_in_view``: relative boxes to pixel boxes [N, 4], clipped to the image."""
    laid = geometry(view, height=height, width=width, input_size=input_size)
    y0_N, x0_N, y1_N, x1_N = np.asarray(relative_N4, dtype=np.float64).reshape(-1, 4).T * input_size
    y0_N, y1_N = ((y_N - laid.top) / laid.scale_y + laid.source_top for y_N in (y0_N, y1_N))
    x0_N, x1_N = ((x_N - laid.left) / laid.scale_x + laid.source_left for x_N in (x0_N, x1_N))
    if view.flip:
        x0_N, x1_N = width - x1_N, width - x0_N
    xyxy_N4 = np.stack([x0_N, y0_N, x1_N, y1_N], axis=1)
    return np.clip(xyxy_N4, 0.0, np.array([width, height, width, height], dtype=np.float64))


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
