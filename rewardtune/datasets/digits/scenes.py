"""Digit scenes: handwritten digits crowded on textured canvases.

The digits are scikit-learn's bundled set (1797 images of 8x8; E. Alpaydin, C. Kaynak, UCI
Optical Recognition of Handwritten Digits). They are dealt into three disjoint splits, so no
scene of one split shows a digit of another.

Axes: N objects of a scene.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "holdout", "validation"]
Ink = Literal["tinted", "vivid"]

_NUM_HOLDOUT_DIGITS = 300
_NUM_VALIDATION_DIGITS = 400
# Which digit belongs to which split never changes: a checkpoint trained on one split must not
# have seen another.
_SPLIT_SEED = 20230817
SPLITS: tuple[Split, ...] = ("train", "holdout", "validation")
TEXTURES = ("plain", "stripes", "checks", "noise")
DIGIT_NAMES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """What a scene looks like; sizes in pixels."""

    size: int = 48
    min_digits: int = 2
    max_digits: int = 9
    min_digit_size: float = 11.0
    max_digit_size: float = 20.0
    min_visible: float = 0.6
    """Share of what is still visible of a digit that one later digit must leave uncovered."""
    ink: Ink = "tinted"
    """"tinted": nearly white; "vivid": white, or a saturated colour that has a plain name."""


@dataclass(frozen=True, slots=True)
class Scene:
    image_HWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    masks_NHW: NDArray[np.bool_]
    """Visible strokes of each digit."""
    texture_HW: NDArray[np.int64]
    """Index of the background texture at each pixel."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Handwritten digits of one split."""

    strokes_G88: NDArray[np.float32]
    """Ink in [0, 1]."""
    labels_G: NDArray[np.int64]


def load_glyphs(split: Split) -> Glyphs:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits.target))
    holdout_end = _NUM_HOLDOUT_DIGITS
    validation_end = holdout_end + _NUM_VALIDATION_DIGITS
    index = {
        "holdout": order[:holdout_end],
        "validation": order[holdout_end:validation_end],
        "train": order[validation_end:],
    }[split]
    return Glyphs(
        strokes_G88=(digits.images[index] / 16.0).astype(np.float32),
        labels_G=digits.target[index].astype(np.int64),
    )


def compose_scene(glyphs: Glyphs, rng: np.random.Generator, style: SceneStyle) -> Scene:
    """Lay digits over a textured canvas, later ones over earlier ones."""
    size = style.size
    canvas, texture_HW = _background(rng, size)
    target_count = int(rng.integers(style.min_digits, style.max_digits + 1))
    labels: list[int] = []
    masks: list[NDArray[np.bool_]] = []
    for _ in range(4 * target_count):
        if len(labels) == target_count:
            break
        glyph = int(rng.integers(len(glyphs.labels_G)))
        ink = _write(glyphs.strokes_G88[glyph], rng, style)
        top, left = (int(rng.integers(0, size - side + 1)) for side in ink.shape)
        window = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
        stroke = np.zeros((size, size), dtype=bool)
        stroke[window] = ink > 0.5
        total = [int(mask.sum()) for mask in masks]
        if any(
            (mask & ~stroke).sum() < style.min_visible * count
            for mask, count in zip(masks, total, strict=True)
        ):
            continue
        masks = [mask & ~stroke for mask in masks]
        colour = _INKS[style.ink](rng)
        canvas[window] += ink[..., None] * (colour - canvas[window])
        labels.append(int(glyphs.labels_G[glyph]))
        masks.append(stroke)
    noisy = canvas + rng.normal(0.0, 5.0, canvas.shape)
    return Scene(
        image_HWC=noisy.clip(0, 255).astype(np.uint8),
        labels_N=np.array(labels, dtype=np.int64),
        masks_NHW=np.array(masks, dtype=bool).reshape(-1, size, size),
        texture_HW=texture_HW,
    )


def _background(
    rng: np.random.Generator, size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two or three textured regions split by straight lines."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    canvas = np.zeros((size, size, 3))
    texture_HW = np.zeros((size, size), dtype=np.int64)
    region = np.zeros((size, size), dtype=np.int64)
    for _ in range(int(rng.integers(1, 3))):
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.25, 0.25) * size
        side = (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle) > offset
        region = region * 2 + side
    for number in np.unique(region):
        inside = region == number
        texture = int(rng.integers(len(TEXTURES)))
        base = rng.uniform(20, 90) + rng.normal(0.0, 12.0, 3)
        other = rng.normal(0.0, 10.0, 3)
        period, angle = rng.uniform(4.0, 10.0), rng.uniform(0, np.pi)
        u = (x * np.cos(angle) + y * np.sin(angle)) / period
        v = (y * np.cos(angle) - x * np.sin(angle)) / period
        # Drawn for every texture, so that the numbers after it do not depend on which it is.
        noise = rng.normal(0.0, 1.0, x.shape)
        match TEXTURES[texture]:
            case "plain":
                pattern = np.zeros_like(x)
            case "stripes":
                pattern = np.sign(np.sin(2 * np.pi * u))
            case "checks":
                pattern = np.sign(np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v))
            case _:
                pattern = noise
        canvas[inside] = base + pattern[inside, None] * other
        texture_HW[inside] = texture
    return canvas, texture_HW


def _write(
    strokes_88: NDArray[np.float32], rng: np.random.Generator, style: SceneStyle
) -> NDArray[np.float64]:
    """One digit's ink [height, width] in [0, 1]: scaled, sheared, thinner or thicker."""
    height = float(np.exp(rng.uniform(np.log(style.min_digit_size), np.log(style.max_digit_size))))
    width = height * rng.uniform(0.75, 1.15)
    shear, rotation = rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2)
    side = int(np.ceil(1.6 * max(height, width)))
    # Output pixel to glyph pixel: centre, undo rotation and shear, scale to the 8x8 grid.
    cos, sin = np.cos(rotation), np.sin(rotation)
    matrix = (
        np.array([[8 / width, 0.0], [0.0, 8 / height]])
        @ np.array([[1.0, shear], [0.0, 1.0]])
        @ np.array([[cos, sin], [-sin, cos]])
    )
    offset = np.array([4.0, 4.0]) - matrix @ np.array([side / 2, side / 2])
    padded = np.zeros((16, 16), dtype=np.float32)  # np.pad, several times faster
    padded[4:12, 4:12] = strokes_88
    glyph = Image.fromarray(padded)
    ink = np.asarray(
        glyph.transform(
            (side, side),
            Image.Transform.AFFINE,
            (*matrix[0], offset[0] + 4.0, *matrix[1], offset[1] + 4.0),
            resample=Image.Resampling.BICUBIC,
        ),
        dtype=np.float64,
    )
    threshold, softness = rng.uniform(0.3, 0.55), 0.25
    ink = ((ink - threshold) / softness + 0.5).clip(0.0, 1.0)
    rows, columns = np.flatnonzero((ink > 0.5).any(axis=1)), np.flatnonzero((ink > 0.5).any(axis=0))
    if len(rows) == 0:
        return np.ones((1, 1))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _tinted(rng: np.random.Generator) -> NDArray[np.float64]:
    """Bright, with a tint."""
    return rng.uniform(170, 255, 3)


def _vivid(rng: np.random.Generator) -> NDArray[np.float64]:
    """White, or near one of six hues that stand a sixth of the circle apart."""
    kind = int(rng.integers(_NUM_HUES + 1))
    hue = (kind + rng.uniform(-0.2, 0.2)) / _NUM_HUES % 1.0
    saturation, value = rng.uniform(0.55, 0.9), rng.uniform(0.8, 1.0)
    rgb = colorsys.hsv_to_rgb(hue, saturation if kind < _NUM_HUES else 0.0, value)
    return 255.0 * np.array(rgb)


_NUM_HUES = 6
_INKS = {"tinted": _tinted, "vivid": _vivid}
