"""The definition against stored official values, and what the reward must keep."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rewardtune.tasks.colorization.definition import (
    colour_counts,
    colour_reward,
    hue_entropy,
    round_to_levels,
)
from rewardtune.tasks.colorization.lab import srgb_to_lab
from tests.rewardtune.tasks.colorization.shared_pictures import SHARED, needs_shared

EXPECTED: dict[str, Any] = (
    json.loads((SHARED / "expected.json").read_text())["images"] if SHARED.is_dir() else {}
)
RED, GREEN, BLUE, GREY, BLACK = (
    [255, 0, 0],
    [0, 255, 0],
    [0, 0, 255],
    [127, 127, 127],
    [0, 0, 0],
)


def picture(*colours: list[int]) -> np.ndarray:
    return np.array([colours], dtype=np.uint8)


@needs_shared
@pytest.mark.parametrize("name", EXPECTED)
def test_stored_pictures_have_the_stored_values(name: str) -> None:
    expected = EXPECTED[name]
    image = np.asarray(Image.open(SHARED / name))
    counts = colour_counts(image)
    assert counts.num_pixels == expected["pixels"]
    assert counts.num_vivid == expected["vivid_pixels"]
    assert counts.hue_count_B.tolist() == expected["hue_hist_atan2_all"]
    reward = colour_reward(image)
    assert reward.reward == pytest.approx(expected["reward"], abs=1e-12)
    assert reward.vivid == pytest.approx(expected["vivid_fraction"], abs=1e-12)
    assert reward.entropy == pytest.approx(expected["entropy_nats_atan2_all"], abs=1e-12)


@needs_shared
@pytest.mark.parametrize("name", EXPECTED)
def test_the_other_readings_have_the_stored_values(name: str) -> None:
    expected = EXPECTED[name]["variants"]
    image = np.asarray(Image.open(SHARED / name))
    counts = colour_counts(image, vivid_rule="squared", hue_range="half")
    assert counts.hue_count_B.tolist() == expected["hue_hist_arctan_all"]
    assert counts.num_vivid / counts.num_pixels == expected["fraction_chroma2_gt_10"]
    reward = colour_reward(image, vivid_rule="chroma", hue_range="half")
    assert reward.entropy == pytest.approx(expected["entropy_arctan_all"], abs=1e-12)
    assert reward.vivid == EXPECTED[name]["vivid_fraction"]


def test_known_colours_have_their_published_lab_values() -> None:
    # CIELAB of the sRGB primaries under D65, as colour tables print them.
    lab = srgb_to_lab(picture(RED, GREEN, BLUE, [255, 255, 255]))[0]
    published = [
        [53.24, 80.09, 67.20],
        [87.73, -86.18, 83.18],
        [32.30, 79.19, -107.86],
        [100.0, 0.0, 0.0],
    ]
    np.testing.assert_allclose(lab, published, atol=0.02)


def test_a_primary_lies_in_the_bin_of_its_hue() -> None:
    lab = srgb_to_lab(picture(RED, GREEN, BLUE))[0]
    for colour, (_, a, b) in zip((RED, GREEN, BLUE), lab, strict=True):
        turn = (math.atan2(b, a) + math.pi) / (2 * math.pi)
        counts = colour_counts(picture(colour))
        assert counts.hue_count_B.argmax() == math.floor(7 * turn)


def test_a_grey_picture_earns_nothing() -> None:
    level = np.arange(256, dtype=np.uint8)
    greys = np.repeat(level[None, :, None], 3, axis=2)
    assert colour_reward(greys).reward == 0
    assert colour_reward(picture(GREY, GREY)).reward == 0
    assert colour_counts(picture(BLACK)).hue_count_B.tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_one_hue_earns_nothing_and_two_halves_earn_ln_2() -> None:
    assert colour_reward(picture(RED, RED)).reward == 0
    assert colour_reward(picture(RED, GREEN)).reward == pytest.approx(math.log(2), abs=1e-15)
    # Half of the pixels vivid; grey counts in the entropy as a hue of its own.
    half = colour_reward(picture(RED, GREEN, GREY, GREY))
    assert half.vivid == 0.5
    assert half.reward == pytest.approx(0.5 * half.entropy, abs=1e-15)


def test_entropy_is_its_formula() -> None:
    count = [4, 0, 1, 3, 0, 0, 8]
    slow = -sum(c / 16 * math.log(c / 16) for c in count if c)
    assert hue_entropy(np.array(count)) == pytest.approx(slow, abs=1e-15)
    uniform = np.full((2, 7), 3)
    np.testing.assert_allclose(hue_entropy(uniform), math.log(7), rtol=1e-15)
    assert math.copysign(1, hue_entropy(np.array([5, 0, 0, 0, 0, 0, 0]))) == 1


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(1, 6), width=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_reward_is_bounded_and_blind_to_the_order_of_pixels(
    seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = image.copy()
    reward = colour_reward(image)
    assert 0 <= reward.reward <= math.log(7) + 1e-15
    assert 0 <= reward.vivid <= 1
    shuffled = rng.permutation(image.reshape(-1, 3)).reshape(image.shape)
    assert colour_reward(shuffled) == reward
    assert colour_reward(image.transpose(1, 0, 2)) == reward
    np.testing.assert_array_equal(image, before)


@given(
    values=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=20),
)
@settings(deadline=None)
def test_floats_become_the_nearest_level(values: list[float]) -> None:
    levels = round_to_levels(np.array(values, dtype=np.float32))
    for value, level in zip(values, levels, strict=True):
        exact = (min(max(value, -1.0), 1.0) + 1) * 127.5
        assert abs(float(level) - exact) <= 0.5
    assert round_to_levels(np.array([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]


def test_every_level_survives_becoming_a_float() -> None:
    level = np.arange(256)
    value = level / 127.5 - 1
    np.testing.assert_array_equal(round_to_levels(value), level)
    np.testing.assert_array_equal(round_to_levels(value.astype(np.float32)), level)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8 with three channels last, got float64"):
        colour_reward(np.zeros((2, 2, 3)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[2, 2, 4\]"):
        colour_reward(np.zeros((2, 2, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="without pixels"):
        colour_reward(np.zeros((0, 2, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="vivid_rule must be one of .* got 'hue'"):
        colour_reward(picture(RED), vivid_rule="hue")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hue_range must be one of .* got 'third'"):
        colour_reward(picture(RED), hue_range="third")  # type: ignore[arg-type]
    for broken in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            round_to_levels(np.array([0.0, broken]))
