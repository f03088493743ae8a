from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from records import View
from tasks.view import ViewConfig, boxes_in_view, boxes_to_pixels, clip_boxes, geometry, view_image

_views = st.builds(
    View,
    flip=st.booleans(),
    scale=st.floats(0.3, 2.0),
    offset_y=st.floats(0, 1),
    offset_x=st.floats(0, 1),
)
_sides = st.integers(1, 700)


def _to_values(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return pixels.astype(np.float64) / 255 * 2 - 1


def test_an_image_of_the_input_s_size_is_only_rescaled_in_value() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = view_image(pixels, View(), input_size=32)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, _to_values(pixels), atol=1e-7)
    np.testing.assert_array_equal(view_image(pixels, View(flip=True), input_size=32), seen[:, ::-1])


def test_values_are_those_of_the_published_code() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    # big_vision's value_range(-1, 1), in float32 step by step.
    expected = pixels.astype(np.float32) / np.float32(255) * np.float32(2) + np.float32(-1)
    np.testing.assert_array_equal(view_image(pixels, View(), input_size=16), expected)


@pytest.mark.parametrize(("offset", "first_row"), [(0.0, 0), (0.5, 8), (1.0, 16)])
def test_offsets_move_the_padding_from_the_end_to_the_start(offset: float, first_row: int) -> None:
    white = np.full((16, 32, 3), 255, dtype=np.uint8)
    seen = view_image(white, View(offset_y=offset), input_size=32)
    expected = np.zeros((32, 32, 3), dtype=np.float32)
    expected[first_row : first_row + 16] = 1.0
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(("offset", "first_column"), [(0.0, 0), (0.5, 16), (1.0, 32)])
def test_offsets_move_the_cut_from_the_end_to_the_start(offset: float, first_column: int) -> None:
    columns = np.arange(32, dtype=np.uint8).repeat(2)[None, :, None] * 7
    pixels = np.broadcast_to(columns, (64, 64, 3)).astype(np.uint8)
    half = View(scale=2.0, offset_y=0.0, offset_x=offset)
    seen = view_image(pixels, half, input_size=32)  # 64 px at scale 2 into 32: one to one
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
    laid = geometry(View(), height=height, width=width, input_size=64)
    rows, columns = _triangle_weights(height, laid.height), _triangle_weights(width, laid.width)
    expected = np.einsum("yh,hwc,xw->yxc", rows, pixels.astype(np.float64), columns)
    seen = view_image(pixels, View(), input_size=64)[: laid.height, : laid.width]
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

    seen = view_image(pixels, view, input_size=input_size)
    relative = boxes_in_view(box, view, height=height, width=width, input_size=input_size)
    top, left, bottom, right = relative[0] * input_size
    centres = np.arange(input_size) + 0.5
    # Beyond the reach of the resampling filter on either side of the edge.
    reach = 1.0 + max(1.0, view.scale * input_size / max(height, width))
    inside_y, outside_y = _either_side(centres, top, bottom, reach)
    inside_x, outside_x = _either_side(centres, left, right, reach)
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
def test_boxes_come_back_from_the_view(
    view: View, height: int, width: int, input_size: int, data: st.DataObject
) -> None:
    xs = data.draw(st.lists(st.floats(0, width), min_size=2, max_size=2).map(sorted))
    ys = data.draw(st.lists(st.floats(0, height), min_size=2, max_size=2).map(sorted))
    box = np.array([[xs[0], ys[0], xs[1], ys[1]]])
    shape = {"height": height, "width": width, "input_size": input_size}
    relative = boxes_in_view(box, view, **shape)
    assert relative[0, 0] <= relative[0, 2]
    assert relative[0, 1] <= relative[0, 3]
    np.testing.assert_allclose(boxes_to_pixels(relative, view, **shape), box, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(view=_views, height=_sides, width=_sides)
def test_pixel_boxes_lie_in_the_image_whatever_was_predicted(
    view: View, height: int, width: int
) -> None:
    wild = np.array([[-3.0, -3.0, 4.0, 4.0], [0.0, 0.0, 1.0, 1.0], [0.9, 0.9, 5.0, 5.0]])
    got = boxes_to_pixels(wild, view, height=height, width=width, input_size=64)
    assert np.all(got >= 0)
    assert np.all(got[:, [0, 2]] <= width)
    assert np.all(got[:, [1, 3]] <= height)


@settings(max_examples=100, deadline=None)
@given(view=_views, height=_sides, width=_sides, input_size=st.integers(1, 256))
def test_the_longer_side_is_scale_times_the_input(
    view: View, height: int, width: int, input_size: int
) -> None:
    laid = geometry(view, height=height, width=width, input_size=input_size)
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
    seen = view_image(grey, view, input_size=input_size)
    laid = geometry(view, height=height, width=width, input_size=input_size)
    covered = min(laid.height, input_size) * min(laid.width, input_size)
    assert np.count_nonzero(seen == 1.0) == 3 * covered
    assert np.count_nonzero(seen == 0.0) == seen.size - 3 * covered


def test_no_boxes_stay_no_boxes() -> None:
    nothing = np.zeros((0, 4))
    shape = {"height": 10, "width": 20, "input_size": 16}
    assert boxes_in_view(nothing, View(), **shape).shape == (0, 4)
    assert boxes_to_pixels(nothing, View(), **shape).shape == (0, 4)
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
        geometry(View(), height=0, width=5, input_size=32)


def test_the_default_config_draws_the_plain_view() -> None:
    assert ViewConfig().sample(np.random.default_rng(0)) == View()


def test_a_config_draws_what_it_allows() -> None:
    config = ViewConfig(flip_probability=0.25, min_scale=0.3, max_scale=2.0)
    rng = np.random.default_rng(0)
    views = [config.sample(rng) for _ in range(4000)]
    scales = np.array([view.scale for view in views])
    assert 0.3 <= scales.min() < 0.31
    assert 1.99 < scales.max() <= 2.0
    assert abs(np.mean([view.flip for view in views]) - 0.25) < 0.03
    for offsets in ([v.offset_y for v in views], [v.offset_x for v in views]):
        assert abs(np.mean(offsets) - 0.5) < 0.03


def test_flipping_alone_moves_nothing_and_changes_no_other_draw() -> None:
    flips = ViewConfig(flip_probability=1.0).sample(np.random.default_rng(3))
    assert flips == View(flip=True)
    jitter = {"min_scale": 0.5, "max_scale": 1.5}
    plain = ViewConfig(**jitter).sample(np.random.default_rng(3))
    flipped = ViewConfig(flip_probability=1.0, **jitter).sample(np.random.default_rng(3))
    assert (flipped.scale, flipped.offset_y) == (plain.scale, plain.offset_y)


@pytest.mark.parametrize(
    "settings",
    [
        {"flip_probability": 1.5},
        {"min_scale": 0.0},
        {"min_scale": 1.2},
        {"max_scale": 0.5},
        {"rotation": 3.0},
    ],
)
def test_an_impossible_config_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ViewConfig(**settings)
