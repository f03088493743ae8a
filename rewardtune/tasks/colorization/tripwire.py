"""What tells that a policy games the colour reward, one picture at a time: the definition.

The reward asks for vivid pixels of many hues and does not look where they lie. None of these
figures is part of it. ``tripwire_kernel.py`` computes the same for whole batches, and tests hold
the two together.

Axes: H height, W width, 3 channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.colorization.definition import NUM_HUE_BINS, HueRange, VividRule, classify
from rewardtune.tasks.colorization.lab import srgb_to_lab


@dataclass(frozen=True, slots=True)
class ColourTripwires:
    """Figures of one picture, to be compared with those of photographs and of the model before."""

    dominant_hue_ratio: float
    """Share of the vivid pixels that lie in the commonest of the seven hue bins: 1/7 to 1, and 0
    for a picture without vivid pixels. One colour over everything is near 1."""

    chroma: float
    """Mean chroma of CIELAB, C*ab = sqrt(a^2 + b^2), over all pixels: 0 for grey, 134 at most
    (pure blue)."""

    clipped_ratio: float
    """Share of the pixels on the border of the sRGB gamut: with a channel at level 0 or 255."""

    total_variation_a: float
    """Mean absolute difference of neighbouring pixels in a: high for noise, 0 for flat colour."""

    total_variation_b: float


def colour_tripwires(
    image_HW3: NDArray[np.uint8],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> ColourTripwires:
    """All figures of one picture.

    Raises:
        ValueError: not uint8 [H, W, 3], no pixels, or an unknown switch.
    """
    if image_HW3.ndim != 3 or image_HW3.size == 0:
        raise ValueError(
            f"a picture must be [H, W, 3] with pixels in it, got {list(image_HW3.shape)}"
        )
    classes = classify(image_HW3, vivid_rule=vivid_rule, hue_range=hue_range)
    hues = classes.hue_bin[classes.is_vivid]
    a_HW, b_HW = np.moveaxis(srgb_to_lab(image_HW3)[..., 1:], -1, 0)
    return ColourTripwires(
        dominant_hue_ratio=float(np.bincount(hues, minlength=NUM_HUE_BINS).max())
        / max(len(hues), 1),
        chroma=float(np.hypot(a_HW, b_HW).mean()),
        clipped_ratio=float(((image_HW3 == 0) | (image_HW3 == 255)).any(axis=-1).mean()),
        total_variation_a=total_variation(a_HW),
        total_variation_b=total_variation(b_HW),
    )


def total_variation(value_HW: NDArray[np.float64]) -> float:
    """Mean absolute difference of neighbours, across and down; 0 where there are none."""
    across = np.abs(np.diff(value_HW, axis=1))
    down = np.abs(np.diff(value_HW, axis=0))
    return float((across.sum() + down.sum()) / max(across.size + down.size, 1))
