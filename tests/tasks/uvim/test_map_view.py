"""Label maps through views, against the published resizing and a pixel-by-pixel definition."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from records import View
from tasks.uvim.map_view import map_from_view, map_in_view, nearest
from tasks.view import geometry
from tests.tasks.uvim.reference import arrays

views = st.builds(
    View,
    flip=st.booleans(),
    scale=st.sampled_from([0.5, 0.8, 1.0, 1.7]),
    offset_y=st.floats(0, 1),
    offset_x=st.floats(0, 1),
)
sides = st.integers(1, 40)


def test_resizing_is_the_reference_s() -> None:
    stored = arrays("panoptic_pq")
    for image in range(4):
        expected = stored[f"out/{image}/two_channel_at_image_size"]
        source = stored["out/two_channel_minfrac_0.0"][image]
        rows, columns = (
            nearest(n, m) for n, m in zip(expected.shape[:2], source.shape[:2], strict=True)
        )
        np.testing.assert_array_equal(source[rows[:, None], columns], expected)
    stored = arrays("resize")
    for case in range(3):
        source, expected = stored[f"nearest/{case}/in"], stored[f"nearest/{case}/out"]
        rows, columns = (
            nearest(n, m) for n, m in zip(expected.shape[:2], source.shape[:2], strict=True)
        )
        np.testing.assert_array_equal(source[rows[:, None], columns], expected)


def test_an_exact_whole_number_is_not_rounded_away() -> None:
    # (7 + 1/2) * 512 / 480 = 8 exactly.
    assert nearest(480, 512)[7] == 8


@settings(max_examples=60, deadline=None)
@given(views, sides, sides, st.integers(1, 24))
def test_a_view_shows_what_lies_under_each_pixel_s_centre(
    view: View, height: int, width: int, size: int
) -> None:
    source = np.arange(height * width).reshape(height, width)
    shown = map_in_view(source, view, input_size=size, outside=-1)
    laid = geometry(view, height=height, width=width, input_size=size)
    for y in range(size):
        for x in range(size):
            row = floor((y - laid.top + Fraction(1, 2)) * Fraction(height, laid.height))
            column = floor((x - laid.left + Fraction(1, 2)) * Fraction(width, laid.width))
            is_inside = 0 <= row < height and 0 <= column < width
            column = width - 1 - column if view.flip else column
            assert shown[y, x] == (source[row, column] if is_inside else -1)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), sides, sides)
def test_a_whole_picture_comes_back_if_it_was_not_shrunk(
    flip: bool, height: int, width: int
) -> None:
    source = np.arange(height * width).reshape(height, width)
    view = View(flip=flip)
    size = 3 * max(height, width)
    shown = map_in_view(source, view, input_size=size)
    np.testing.assert_array_equal(map_from_view(shown, view, height=height, width=width), source)


def test_what_the_input_cuts_off_comes_back_as_outside() -> None:
    source = np.ones((8, 8), dtype=np.int32)
    view = View(scale=2.0, offset_y=0.0, offset_x=0.0)
    back = map_from_view(map_in_view(source, view, input_size=8), view, height=8, width=8)
    assert back.sum() == 16 and back[:4, :4].all()
