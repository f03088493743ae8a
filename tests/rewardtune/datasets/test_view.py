from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rewardtune.datasets.frame import Square
from rewardtune.datasets.view import ViewConfig
from rewardtune.records import View, Window


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


_CROPS = ViewConfig(keep_aspect=False, flip_probability=0.5, min_crop_area=0.05)


def test_squeezed_views_show_all_of_the_image_unless_cropped() -> None:
    squeezed = ViewConfig(keep_aspect=False, flip_probability=1.0)
    assert squeezed.sample(np.random.default_rng(0)) == View(flip=True, window=Window())
    assert squeezed.whole == _CROPS.whole == View(window=Window())
    assert ViewConfig(flip_probability=1.0, max_scale=2.0).whole == View()


def test_cropping_changes_no_flip_and_no_offset() -> None:
    zooms = ViewConfig(flip_probability=0.5, max_scale=2.0)
    for seed in range(20):
        zoomed, cropped = (c.sample(np.random.default_rng(seed)) for c in (zooms, _CROPS))
        assert cropped.window is not None and cropped.scale == 1.0
        assert (cropped.flip, cropped.offset_y, cropped.offset_x) == (
            zoomed.flip,
            zoomed.offset_y,
            zoomed.offset_x,
        )
        assert cropped.window.size == pytest.approx(zoomed.scale - 1.0)


def _published_crop(height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
    """Sides of an Inception crop as TensorFlow's kernel draws them: in whole pixels, and again
    and again until one has its area."""
    least, most = 0.05 * height * width, height * width
    for _ in range(100):
        aspect = rng.uniform(0.75, 1.33)
        low, high = round(np.sqrt(least / aspect)), round(np.sqrt(most / aspect))
        if round(high * aspect) > width:
            high = int((width + 0.5 - 1e-7) / aspect)
            high -= round(high * aspect) > width
        high = min(high, height)
        tall = int(rng.integers(min(low, high), high + 1))
        wide = round(tall * aspect)
        if least <= tall * wide <= most and wide <= width:
            return tall, wide
    return height, width


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (333, 500), (300, 300)])
def test_crops_are_drawn_as_inceptions_are(height: int, width: int) -> None:
    rng, num = np.random.default_rng(0), 6000
    published = np.array([_published_crop(height, width, rng) for _ in range(num)])
    ours = []
    for _ in range(num):
        laid = Square(side=512).frame(_CROPS.sample(rng), height=height, width=width).geometry
        ours.append((laid.source_height, laid.source_width))
    drawn = np.array(ours)
    # Height, width and area.
    for figure in (np.array([1, 0]), np.array([0, 1]), np.array([1, 1])):
        # Kolmogorov and Smirnov's two-sample distance: 0.036 is passed once in a thousand times.
        one, other = (np.sort((sides**figure).prod(axis=1)) for sides in (published, drawn))
        points = np.union1d(one, other)
        distance = np.abs(
            np.searchsorted(one, points, side="right")
            - np.searchsorted(other, points, side="right")
        ).max()
        assert distance / num < 0.036


def test_settings_that_came_later_stand_only_in_runs_that_use_them() -> None:
    assert ViewConfig().model_dump() == {
        "flip_probability": 0.0,
        "min_scale": 1.0,
        "max_scale": 1.0,
    }
    for config in (ViewConfig(max_scale=2.0), _CROPS, ViewConfig(keep_aspect=False)):
        assert ViewConfig.model_validate(config.model_dump(mode="json")) == config
        assert ViewConfig.model_validate_json(config.model_dump_json()) == config
    assert _CROPS.model_dump()["min_crop_area"] == 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_aspect": False, "max_scale": 2.0}, "zoomed into by min_crop_area"),
        ({"min_crop_area": 0.05}, "need keep_aspect = false"),
        ({"max_crop_aspect": 2.0}, "need keep_aspect = false"),
        (
            {"keep_aspect": False, "min_crop_aspect": 2.0},
            "min_crop_aspect 2.0 is larger than max_crop_aspect 1.33: swap them",
        ),
    ],
)
def test_settings_that_exclude_each_other_say_so(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ViewConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"flip_probability": 1.5},
        {"keep_aspect": "squeeze"},
        {"keep_aspect": False, "min_crop_area": 0.0},
        {"min_scale": 0.0},
        {"min_scale": 1.2},
        {"max_scale": 0.5},
        {"rotation": 3.0},
    ],
)
def test_an_impossible_config_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ViewConfig(**settings)
