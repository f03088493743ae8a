"""Label maps through the view that their image is seen in, and back; nearest, in integers.

A pixel shows what lies under its centre: of ``n`` pixels laid over ``m``, number ``i`` shows
floor((i + 1/2) m / n). In floats that errs by one where the product is a whole number.

Axes: H height, W width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.frame import Frame


def nearest(num_shown: int, num_source: int) -> NDArray[np.int64]:
    """Which of ``num_source`` pixels each of ``num_shown`` shows."""
    shown = np.arange(num_shown, dtype=np.int64)
    return (2 * shown + 1) * num_source // (2 * num_shown)


def map_in_view(map_HW: NDArray[Any], frame: Frame, *, outside: int = 0) -> NDArray[Any]:
    """A map of the image as the model sees it [side, side].

    Args:
        outside: what stands where the input shows no image.
    """
    # By its own sides, as the picture is.
    height, width = map_HW.shape
    laid, side = replace(frame, height=height, width=width).geometry, frame.framing.side
    rows, shows_row = _seen(side, laid.top, laid.height, laid.source_height)
    columns, shows_column = _seen(side, laid.left, laid.width, laid.source_width)
    rows, columns = rows + laid.source_top, columns + laid.source_left
    if frame.view.flip:
        columns = width - 1 - columns
    shown_HW = map_HW[rows[:, None], columns]
    return np.where(shows_row[:, None] & shows_column, shown_HW, outside).astype(map_HW.dtype)


def map_from_view(map_HW: NDArray[Any], frame: Frame, *, outside: int = 0) -> NDArray[Any]:
    """A map of what the model sees as a map of the image [height, width].

    Args:
        outside: what stands where the image lies outside the input.
    """
    laid, side = frame.geometry, frame.framing.side
    rows, is_in_row = _seen(frame.height, laid.source_top, laid.source_height, laid.height)
    columns, is_in_column = _seen(frame.width, laid.source_left, laid.source_width, laid.width)
    rows, columns = rows + laid.top, columns + laid.left
    if frame.view.flip:
        columns, is_in_column = columns[::-1], is_in_column[::-1]
    is_in_row &= (rows >= 0) & (rows < side)
    is_in_column = is_in_column & (columns >= 0) & (columns < side)
    last = side - 1
    shown_HW = map_HW[rows.clip(0, last)[:, None], columns.clip(0, last)]
    return np.where(is_in_row[:, None] & is_in_column, shown_HW, outside).astype(map_HW.dtype)


def _seen(
    num_rows: int, start: int, length: int, num_source: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which of ``num_source`` rows, laid over ``length`` from ``start``, each row shows.

    And whether it shows one.
    """
    laid = np.arange(num_rows, dtype=np.int64) - start
    source = (2 * laid + 1) * num_source // (2 * length)
    return source.clip(0, num_source - 1), (laid >= 0) & (laid < length)
