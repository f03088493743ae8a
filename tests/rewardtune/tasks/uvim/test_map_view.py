"""Label maps through views, against the published resizing and a pixel-by-pixel definition."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.datasets.frame import Frame, Square, view_image
from rewardtune.records import View, Window
from rewardtune.tasks.uvim.map_view import map_from_view, map_in_view, nearest
from tests.rewardtune.tasks.uvim.reference import arrays

offsets = st.floats(0, 1)
windows = st.just(Window()) | st.builds(
    Window, aspect=st.floats(0.5, 2.0), min_area=st.floats(0.05, 1.0), size=st.floats(0, 1)
)
views = st.builds(
    View,
    flip=st.booleans(),
    scale=st.sampled_from([0.5, 0.8, 1.0, 1.7]),
    offset_y=offsets,
    offset_x=offsets,
) | st.builds(View, flip=st.booleans(), offset_y=offsets, offset_x=offsets, window=windows)
sides = st.integers(1, 40)


def frame_of(view: View, *, height: int, width: int, input_size: int) -> Frame:
    return Square(side=input_size).frame(view, height=height, width=width)


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
    shown = map_in_view(
        source,
        frame_of(view, height=len(source), width=source.shape[1], input_size=size),
        outside=-1,
    )
    laid = frame_of(view, height=height, width=width, input_size=size).geometry
    for y in range(size):
        for x in range(size):
            rows_per_row = Fraction(laid.source_height, laid.height)
            columns_per_column = Fraction(laid.source_width, laid.width)
            row = floor((y - laid.top + Fraction(1, 2)) * rows_per_row)
            column = floor((x - laid.left + Fraction(1, 2)) * columns_per_column)
            is_inside = 0 <= row < laid.source_height and 0 <= column < laid.source_width
            row, column = row + laid.source_top, column + laid.source_left
            column = width - 1 - column if view.flip else column
            assert shown[y, x] == (source[row, column] if is_inside else -1)


@settings(max_examples=60, deadline=None)
@given(views, sides, sides, st.integers(1, 24))
def test_a_map_of_the_view_comes_back_under_each_pixel_s_centre(
    view: View, height: int, width: int, size: int
) -> None:
    shown = np.arange(size * size).reshape(size, size)
    back = map_from_view(
        shown, frame_of(view, height=height, width=width, input_size=size), outside=-1
    )
    laid = frame_of(view, height=height, width=width, input_size=size).geometry
    for row in range(height):
        for column in range(width):
            across = width - 1 - column if view.flip else column
            down, across = row - laid.source_top, across - laid.source_left
            y = floor((down + Fraction(1, 2)) * Fraction(laid.height, laid.source_height))
            x = floor((across + Fraction(1, 2)) * Fraction(laid.width, laid.source_width))
            y, x = y + laid.top, x + laid.left
            is_inside = 0 <= down < laid.source_height and 0 <= across < laid.source_width
            is_inside = is_inside and 0 <= y < size and 0 <= x < size
            assert back[row, column] == (shown[y, x] if is_inside else -1)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), views, st.integers(4, 40), st.integers(4, 40), st.integers(1, 48))
def test_images_and_label_maps_go_through_a_view_alike(
    seed: int, view: View, height: int, width: int, size: int
) -> None:
    blocks = np.random.default_rng(seed).integers(0, 2, (height // 4, width // 4))
    label = np.kron(blocks, np.ones((4, 4), np.int64))
    label = np.pad(label, ((0, height % 4), (0, width % 4)), mode="edge")
    image = (label * 255).astype(np.uint8)[..., None].repeat(3, axis=-1)
    shown = map_in_view(
        label, frame_of(view, height=len(label), width=label.shape[1], input_size=size), outside=2
    )
    seen = view_image(image, frame_of(view, height=height, width=width, input_size=size))[..., 0]
    # All that the resampling looked at there was of one label.
    assert (shown[seen == 1] == 1).all() and (shown[seen == -1] == 0).all()
    assert (seen[shown == 2] == 0).all()


def test_what_lies_outside_a_window_comes_back_as_outside() -> None:
    window = Window(aspect=1.0, min_area=0.25, size=0.0)
    view = View(offset_y=1.0, offset_x=0.5, window=window)
    back = map_from_view(np.ones((6, 6), np.int32), frame_of(view, height=8, width=8, input_size=6))
    assert back.sum() == 16 and back[4:, 2:6].all()


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.sampled_from([None, Window()]), sides, sides)
def test_a_whole_picture_comes_back_if_it_was_not_shrunk(
    flip: bool, window: Window | None, height: int, width: int
) -> None:
    source = np.arange(height * width).reshape(height, width)
    view = View(flip=flip, window=window)
    size = 3 * max(height, width)
    shown = map_in_view(
        source, frame_of(view, height=len(source), width=source.shape[1], input_size=size)
    )
    np.testing.assert_array_equal(
        map_from_view(shown, frame_of(view, height=height, width=width, input_size=size)), source
    )


def test_what_the_input_cuts_off_comes_back_as_outside() -> None:
    source = np.ones((8, 8), dtype=np.int32)
    view = View(scale=2.0, offset_y=0.0, offset_x=0.0)
    back = map_from_view(
        map_in_view(
            source, frame_of(view, height=len(source), width=source.shape[1], input_size=8)
        ),
        frame_of(view, height=8, width=8, input_size=8),
    )
    assert back.sum() == 16 and back[:4, :4].all()
