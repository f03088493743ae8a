from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rewardtune.datasets.frame import Frame, Square, clip_boxes, view_image
from rewardtune.records import View, Window

_padded_views = st.builds(
    View,
    flip=st.booleans(),
    scale=st.floats(0.3, 2.0),
    offset_y=st.floats(0, 1),
    offset_x=st.floats(0, 1),
)
_windows = st.just(Window()) | st.builds(
    Window, aspect=st.floats(0.5, 2.0), min_area=st.floats(0.01, 1.0), size=st.floats(0, 1)
)
_squeezed_views = st.builds(
    View,
    flip=st.booleans(),
    offset_y=st.floats(0, 1),
    offset_x=st.floats(0, 1),
    window=_windows,
)
_views = _padded_views | _squeezed_views
_sides = st.integers(1, 700)


def frame_of(view: View, *, height: int, width: int, input_size: int) -> Frame:
    return Square(side=input_size).frame(view, height=height, width=width)


def seen_in(image: NDArray[np.uint8], view: View, *, input_size: int) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    return view_image(image, frame_of(view, height=height, width=width, input_size=input_size))


def _to_values(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pixels.astype(np.float64) / 255 * 2 - 1


def test_an_image_of_the_input_s_size_is_only_rescaled_in_value() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = seen_in(pixels, View(), input_size=32)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, _to_values(pixels), atol=1e-7)
    np.testing.assert_array_equal(seen_in(pixels, View(flip=True), input_size=32), seen[:, ::-1])


def test_values_are_those_of_the_published_code() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    # big_vision's value_range(-1, 1), in float32 step by step.
    expected = pixels.astype(np.float32) / np.float32(255) * np.float32(2) + np.float32(-1)
    np.testing.assert_array_equal(seen_in(pixels, View(), input_size=16), expected)


@pytest.mark.parametrize(("offset", "first_row"), [(0.0, 0), (0.5, 8), (1.0, 16)])
def test_offsets_move_the_padding_from_the_end_to_the_start(offset: float, first_row: int) -> None:
    white = np.full((16, 32, 3), 255, dtype=np.uint8)
    seen = seen_in(white, View(offset_y=offset), input_size=32)
    expected = np.zeros((32, 32, 3), dtype=np.float32)
    expected[first_row : first_row + 16] = 1.0
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(("offset", "first_column"), [(0.0, 0), (0.5, 16), (1.0, 32)])
def test_offsets_move_the_cut_from_the_end_to_the_start(offset: float, first_column: int) -> None:
    columns = np.arange(32, dtype=np.uint8).repeat(2)[None, :, None] * 7
    pixels = np.broadcast_to(columns, (64, 64, 3)).astype(np.uint8)
    half = View(scale=2.0, offset_y=0.0, offset_x=offset)
    seen = seen_in(pixels, half, input_size=32)  # 64 px at scale 2 into 32: one to one
    np.testing.assert_allclose(
        seen, _to_values(pixels[:32, first_column : first_column + 32]), atol=1e-7
    )


def _triangle_weights(size_in: int, size_out: int) -> NDArray[np.float64]:
    """Bilinear resampling with antialiasing as a matrix: the slow, obvious definition."""
    scale = size_in / size_out
    support = max(1.0, scale)
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in)[None, :] + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / support)
    normalised: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalised


@pytest.mark.parametrize(("height", "width"), [(90, 120), (30, 20), (48, 48), (7, 301)])
def test_resizing_equals_a_triangle_filter_computed_the_slow_way(height: int, width: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    laid = frame_of(View(), height=height, width=width, input_size=64).geometry
    rows, columns = _triangle_weights(height, laid.height), _triangle_weights(width, laid.width)
    expected = np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(np.float64), columns)
    seen = seen_in(pixels, View(), input_size=64)[: laid.height, : laid.width]
    # Pillow rounds to a whole level after each of its two passes.
    np.testing.assert_allclose((seen + 1) / 2 * 255, expected, atol=1.01)


@settings(max_examples=60, deadline=None)
@given(view=_views, height=st.integers(8, 90), width=st.integers(8, 90))
def test_boxes_stay_on_their_objects(view: View, height: int, width: int) -> None:
    input_size = 48
    x0, y0, x1, y1 = width // 4, height // 3, width // 4 + width // 2, height // 3 + height // 2
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[y0:y1, x0:x1] = 255
    box = np.array([[x0, y0, x1, y1]], dtype=np.float64)

    seen = seen_in(pixels, view, input_size=input_size)
    relative = frame_of(view, height=height, width=width, input_size=input_size).to_frame(box)
    top, left, bottom, right = relative[0] * input_size
    centres = np.arange(input_size) + 0.5
    # Beyond the reach of the resampling filter on either side of the edge.
    laid = frame_of(view, height=height, width=width, input_size=input_size).geometry
    inside_y, outside_y = _either_side(centres, top, bottom, 1.0 + max(1.0, laid.scale_y))
    inside_x, outside_x = _either_side(centres, left, right, 1.0 + max(1.0, laid.scale_x))
    assert np.all(seen[np.ix_(inside_y, inside_x)] == 1.0)
    assert np.all(seen[outside_y] <= 0.0)
    assert np.all(seen[:, outside_x] <= 0.0)


def _either_side(
    centres: NDArray[np.floating[Any]], low: float, high: float, reach: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    inside = (centres > low + reach) & (centres < high - reach)
    outside = (centres < low - reach) | (centres > high + reach)
    return inside, outside


@settings(max_examples=200, deadline=None)
@given(view=_views, height=_sides, width=_sides, input_size=st.integers(1, 1280), data=st.data())
@pytest.mark.slow
def test_boxes_come_back_from_the_view(
    view: View, height: int, width: int, input_size: int, data: st.DataObject
) -> None:
    xs = data.draw(st.lists(st.floats(0, width), min_size=2, max_size=2).map(sorted))
    ys = data.draw(st.lists(st.floats(0, height), min_size=2, max_size=2).map(sorted))
    box = np.array([[xs[0], ys[0], xs[1], ys[1]]])
    shape = {"height": height, "width": width, "input_size": input_size}
    relative = frame_of(view, **shape).to_frame(box)
    assert relative[0, 0] <= relative[0, 2]
    assert relative[0, 1] <= relative[0, 3]
    np.testing.assert_allclose(frame_of(view, **shape).to_image(relative), box, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(view=_views, height=_sides, width=_sides)
def test_pixel_boxes_lie_in_the_image_whatever_was_predicted(
    view: View, height: int, width: int
) -> None:
    wild = np.array([[-3.0, -3.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 5.0, 5.0]])
    got = frame_of(view, height=height, width=width, input_size=64).to_image(wild)
    assert np.all(got >= 0)
    assert np.all(got[:, [0, 2]] <= width)
    assert np.all(got[:, [1, 3]] <= height)


@settings(max_examples=100, deadline=None)
@given(view=_padded_views, height=_sides, width=_sides, input_size=st.integers(1, 256))
def test_the_longer_side_is_scale_times_the_input(
    view: View, height: int, width: int, input_size: int
) -> None:
    laid = frame_of(view, height=height, width=width, input_size=input_size).geometry
    assert max(laid.height, laid.width) == max(1, round(view.scale * input_size))
    for start, side in ((laid.top, laid.height), (laid.left, laid.width)):
        if side <= input_size:
            assert 0 <= start <= input_size - side
        else:
            assert input_size - side <= start <= 0


@settings(max_examples=50, deadline=None)
@given(view=_views, height=_sides, width=_sides, input_size=st.integers(1, 96))
def test_every_view_of_every_size_can_be_drawn(
    view: View, height: int, width: int, input_size: int
) -> None:
    grey = np.full((height, width, 3), 255, dtype=np.uint8)
    seen = seen_in(grey, view, input_size=input_size)
    laid = frame_of(view, height=height, width=width, input_size=input_size).geometry
    covered = min(laid.height, input_size) * min(laid.width, input_size)
    assert np.count_nonzero(seen == 1.0) == 3 * covered
    assert np.count_nonzero(seen == 0.0) == seen.size - 3 * covered


@settings(max_examples=200, deadline=None)
@given(view=_squeezed_views, height=_sides, width=_sides, input_size=st.integers(1, 256))
def test_a_window_lies_in_the_image_and_fills_the_input(
    view: View, height: int, width: int, input_size: int
) -> None:
    laid = frame_of(view, height=height, width=width, input_size=input_size).geometry
    assert (laid.height, laid.width, laid.top, laid.left) == (input_size, input_size, 0, 0)
    assert 0 <= laid.source_top <= height - laid.source_height < height
    assert 0 <= laid.source_left <= width - laid.source_width < width
    assert view.window is not None
    if (laid.source_height, laid.source_width) != (height, width):
        # As wide as the aspect asks, to a pixel, and as large as the area asks.
        assert abs(laid.source_width - view.window.aspect * laid.source_height) <= 1.5 + (
            view.window.aspect / 2
        )
        grown = (laid.source_height + 1) * (laid.source_width + 1)
        assert grown >= view.window.min_area * height * width


def test_the_sizes_of_a_window_are_those_between_least_and_largest() -> None:
    def sides(size: float, *, aspect: float = 1.25) -> tuple[int, int]:
        view = View(window=Window(aspect=aspect, min_area=0.2, size=size))
        laid = frame_of(view, height=400, width=600, input_size=64).geometry
        return laid.source_height, laid.source_width

    # sqrt(0.2 x 240,000 / 1.25) rows are the least, all 400 the most.
    assert sides(0.0) == (196, 245)
    assert sides(1.0) == (400, 500)
    assert sides(0.5) == (298, 372)
    assert sides(1.0, aspect=3.0) == (200, 600)
    # A fifth of the area at this aspect is wider than the image.
    assert sides(0.0, aspect=9.0) == (400, 600)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("window", [Window(), Window(aspect=1.3, min_area=0.1, size=0.4)])
def test_a_squeezed_image_is_its_window_resized_the_slow_way(window: Window, flip: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    view = View(flip=flip, offset_y=0.3, offset_x=0.8, window=window)
    laid = frame_of(view, height=90, width=120, input_size=32).geometry
    turned = pixels[:, ::-1] if flip else pixels
    part = turned[laid.source_top :, laid.source_left :][: laid.source_height, : laid.source_width]
    expected = np.einsum(
        "yh,hwc,xw->yxc",
        _triangle_weights(laid.source_height, 32),
        part.astype(np.float64),
        _triangle_weights(laid.source_width, 32),
    )
    seen = seen_in(pixels, view, input_size=32)
    np.testing.assert_allclose((seen + 1) / 2 * 255, expected, atol=1.01)


def test_offsets_move_a_window_from_the_start_to_the_end() -> None:
    window = Window(aspect=1.0, min_area=0.05, size=0.2)

    def start(offset: float) -> tuple[int, int]:
        view = View(offset_y=offset, offset_x=offset, window=window)
        laid = frame_of(view, height=100, width=200, input_size=32).geometry
        assert (laid.source_height, laid.source_width) == (45, 45)
        return laid.source_top, laid.source_left

    assert (start(0.0), start(0.5), start(1.0)) == ((0, 0), (28, 78), (55, 155))


def test_no_boxes_stay_no_boxes() -> None:
    nothing = np.zeros((0, 4))
    shape = {"height": 10, "width": 20, "input_size": 16}
    assert frame_of(View(), **shape).to_frame(nothing).shape == (0, 4)
    assert frame_of(View(), **shape).to_image(nothing).shape == (0, 4)
    assert clip_boxes(nothing).kept_N.shape == (0,)


def test_clipping_reports_how_much_of_a_box_is_left() -> None:
    clipped = clip_boxes(
        np.array(
            [
                [0.1, 0.1, 0.3, 0.5],  # inside
                [-0.2, 0.0, 0.2, 1.0],  # half out at the top
                [-1.0, -1.0, 1.0, 1.0],  # a quarter left
                [1.2, 0.0, 1.4, 1.0],  # outside
                [0.5, 0.5, 0.5, 0.9],  # no area
            ]
        )
    )
    np.testing.assert_allclose(clipped.kept_N, [1.0, 0.5, 0.25, 0.0, 0.0])
    np.testing.assert_allclose(clipped.boxes_N4[1], [0.0, 0.0, 0.2, 1.0])
    assert np.all((clipped.boxes_N4 >= 0) & (clipped.boxes_N4 <= 1))


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got image 0 x 5"):
        _ = frame_of(View(), height=0, width=5, input_size=32).geometry
