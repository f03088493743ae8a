"""Segments laid over their picture, for people to look at.

Axes: H height, W width, C colours.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN_RATIO = 0.618034
_OPACITY = 0.6
_STUFF_OPACITY = 0.35


def paint_segments(
    image_HWC: NDArray[np.uint8],
    id_HW: NDArray[np.integer[Any]],
    category_of: Mapping[int, int],
    *,
    is_thing_C: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """The picture in grey, each segment tinted by its class, things edged in white.

    Things of one class differ a little in brightness. What is no segment stays grey.

    Args:
        category_of: the category index of each segment id.
    """
    grey_HWC = np.repeat(image_HWC.mean(axis=-1, keepdims=True), 3, axis=-1)
    picture_HWC = grey_HWC.copy()
    is_thing_HW = np.zeros(id_HW.shape, dtype=bool)
    for number, (identity, category) in enumerate(sorted(category_of.items())):
        mask_HW = id_HW == identity
        is_thing = bool(is_thing_C[category])
        opacity = _OPACITY if is_thing else _STUFF_OPACITY
        colour = _colour(category, brightness=1.0 - 0.12 * (number % 4) if is_thing else 0.8)
        picture_HWC[mask_HW] += opacity * (colour - picture_HWC[mask_HW])
        is_thing_HW |= mask_HW & is_thing
    picture_HWC[_edges(np.where(is_thing_HW, id_HW, 0))] = 255
    levels_HWC: NDArray[np.uint8] = np.rint(picture_HWC).clip(0, 255).astype(np.uint8)
    return levels_HWC


def _edges(id_HW: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Pixels of a segment that border on another on their right or below."""
    edge_HW = np.zeros(id_HW.shape, dtype=bool)
    edge_HW[:, :-1] |= id_HW[:, :-1] != id_HW[:, 1:]
    edge_HW[:-1] |= id_HW[:-1] != id_HW[1:]
    return edge_HW & (id_HW > 0)


def _colour(category: int, *, brightness: float) -> NDArray[np.float64]:
    """Colours far apart for neighbouring categories."""
    rgb = colorsys.hsv_to_rgb(category * _GOLDEN_RATIO % 1.0, 0.75, brightness)
    return 255 * np.array(rgb)
