"""Which views of its pictures a run draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
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
