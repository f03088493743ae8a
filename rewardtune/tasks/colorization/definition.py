"""The colourfulness reward as the paper defines it, one picture at a time.

This is the definition: short and slow. ``kernel.py`` computes the same numbers for whole
batches, and tests hold the two together.

reward = vivid fraction x hue entropy. Vivid is a pixel whose chroma, sqrt(a^2 + b^2) in CIELAB,
exceeds 10. The entropy, in nats, is that of the hue of *all* pixels in seven equal bins of the
circle. So the reward lies between 0 (grey, or one hue) and ln 7 = 1.9459. The mean of a data
set is that of the pictures' rewards, not the product of the two means.

The paper gives no code, and its text has lost root signs ("a2+b2 > 10", "arctan(b/a)"); the
other readings are switches. Source: Pinto et al. 2023, arXiv:2302.08242.

Axes: H height, W width, 3 channels, B hue bins, ... any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.colorization.lab import srgb_to_lab

NUM_HUE_BINS = 7
CHROMA_THRESHOLD = 10.0

VividRule: TypeAlias = Literal["chroma", "squared"]
"""Vivid is sqrt(a^2 + b^2) > 10, or a^2 + b^2 > 10 as the printed formula reads."""
HueRange: TypeAlias = Literal["full", "half"]
"""Hue is atan2(b, a) over the circle, or arctan(b / a) over half of it, as printed."""


@dataclass(frozen=True, slots=True, eq=False)
class ColourCounts:
    """What a picture's reward is made of: whole numbers, so nothing is lost in them."""

    num_pixels: int
    num_vivid: int
    hue_count_B: NDArray[np.int64]
    """Pixels of each hue bin; bin 0 begins at hue -pi (-pi/2 for half the circle)."""


@dataclass(frozen=True, slots=True)
class ColourReward:
    """The reward and its two factors."""

    reward: float
    vivid: float
    """Fraction of pixels that are vivid."""
    entropy: float
    """Of the hue, in nats."""


def colour_reward(
    image_HW3: NDArray[np.uint8],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> ColourReward:
    """Vivid fraction times hue entropy of one picture.

    Raises:
        ValueError: not uint8 [H, W, 3], no pixels, or an unknown switch.
    """
    counts = colour_counts(image_HW3, vivid_rule=vivid_rule, hue_range=hue_range)
    if counts.num_pixels == 0:
        raise ValueError("a picture without pixels has no colourfulness")
    vivid = counts.num_vivid / counts.num_pixels
    entropy = float(hue_entropy(counts.hue_count_B))
    return ColourReward(reward=vivid * entropy, vivid=vivid, entropy=entropy)


def colour_counts(
    image: NDArray[np.uint8],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> ColourCounts:
    """Count the vivid pixels and the hues of an array of colours [..., 3]."""
    classes = classify(image, vivid_rule=vivid_rule, hue_range=hue_range)
    return ColourCounts(
        num_pixels=classes.is_vivid.size,
        num_vivid=int(classes.is_vivid.sum()),
        hue_count_B=np.bincount(classes.hue_bin.ravel(), minlength=NUM_HUE_BINS),
    )


@dataclass(frozen=True, slots=True, eq=False)
class ColourClasses:
    """What each pixel of an array [...] counts as."""

    is_vivid: NDArray[np.bool_]
    hue_bin: NDArray[np.int64]
    """0 to 6."""


def classify(
    image: NDArray[np.uint8], *, vivid_rule: VividRule, hue_range: HueRange
) -> ColourClasses:
    """Classes of colours [..., 3].

    No colour of the 256^3 is so near a border that float64 could err: the nearest is 1.5e-7
    from chroma 10, and 2.0e-8 of a bin from a bin's edge.
    """
    check_switches(vivid_rule=vivid_rule, hue_range=hue_range)
    lab = srgb_to_lab(image)
    a, b = lab[..., 1], lab[..., 2]
    vivid_above = CHROMA_THRESHOLD**2 if vivid_rule == "chroma" else CHROMA_THRESHOLD
    if hue_range == "full":
        turn = (np.arctan2(b, a) + np.pi) / (2 * np.pi)
    else:
        # arctan(b / a): the circle folded on itself, and 0 for black.
        turn = (np.arctan2(np.where(a < 0, -b, b), np.abs(a)) + np.pi / 2) / np.pi
    return ColourClasses(
        is_vivid=a**2 + b**2 > vivid_above,
        # A hue of exactly +pi belongs to the last bin.
        hue_bin=np.minimum(np.floor(turn * NUM_HUE_BINS).astype(np.int64), NUM_HUE_BINS - 1),
    )


def hue_entropy(hue_count_B: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Entropy in nats of counts [..., B]; 0 where there are none."""
    count = np.asarray(hue_count_B, dtype=np.float64)
    share = count / np.maximum(count.sum(axis=-1, keepdims=True), 1)
    log = np.log(share, out=np.zeros_like(share), where=share > 0)
    # + 0.0: an entropy of nothing is 0, not -0.
    entropy: NDArray[np.float64] = -(share * log).sum(axis=-1) + 0.0
    return entropy


def round_to_levels(image: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Pictures in [-1, 1], as a decoder returns them, as the 256 levels the reward is defined on.

    Clipped to [-1, 1], then the nearest level of (value + 1) x 127.5, reckoned in float64; an
    exact half goes to the even level. This is the only place where floats become levels.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    value = np.asarray(image, dtype=np.float64)
    if not np.all(np.isfinite(value)):
        raise ValueError("pictures must be finite numbers in [-1, 1], got NaN or infinity")
    return np.rint((np.clip(value, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def check_switches(*, vivid_rule: str, hue_range: str) -> None:
    """Raises ValueError unless both are known readings of the definition."""
    if vivid_rule not in get_args(VividRule):
        raise ValueError(f"vivid_rule must be one of {get_args(VividRule)}, got '{vivid_rule}'")
    if hue_range not in get_args(HueRange):
        raise ValueError(f"hue_range must be one of {get_args(HueRange)}, got '{hue_range}'")
