"""The fast form against the definition: every colour's code, every stored picture."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rewardtune.tasks.colorization.colour_table import colour_table
from rewardtune.tasks.colorization.definition import (
    HueRange,
    VividRule,
    classify,
    colour_counts,
    colour_reward,
    round_to_levels,
)
from rewardtune.tasks.colorization.kernel import (
    _count_floats,
    _count_levels,
    colour_rewards,
    warm_up,
)
from tests.rewardtune.tasks.colorization.shared_pictures import SHARED, needs_shared

READINGS: list[tuple[VividRule, HueRange]] = list(
    itertools.product(get_args(VividRule), get_args(HueRange))
)


def counts_of(image: np.ndarray, **reading: Any) -> tuple[int, list[int]]:
    slow = colour_counts(image, **reading)
    return slow.num_vivid, slow.hue_count_B.tolist()


def fast_counts(images_NHW3: np.ndarray, **reading: Any) -> list[tuple[int, list[int]]]:
    fast = colour_rewards(images_NHW3, **reading)
    return list(zip(fast.num_vivid_N.tolist(), fast.hue_count_NB.tolist(), strict=True))


def assert_codes_are_the_definitions(reds: range, *, reading: tuple[VividRule, HueRange]) -> None:
    vivid_rule, hue_range = reading
    table = colour_table(vivid_rule=vivid_rule, hue_range=hue_range)
    level = np.arange(256, dtype=np.uint8)
    for red in reds:
        plane = np.stack(np.broadcast_arrays(np.uint8(red), level[:, None], level), axis=-1)
        classes = classify(plane, vivid_rule=vivid_rule, hue_range=hue_range)
        address = table.red_L[red] + table.green_L[:, None] + table.blue_L
        code = table.code_X[address] >> (4 * (red % 2)) & 15
        np.testing.assert_array_equal(code, classes.hue_bin + 8 * classes.is_vivid)


@pytest.mark.slow
def test_all_16_777_216_colours_have_the_code_of_the_definition() -> None:
    assert_codes_are_the_definitions(range(256), reading=("chroma", "full"))


@pytest.mark.parametrize("reading", READINGS[1:])
def test_colours_have_the_code_of_the_other_readings(reading: tuple[VividRule, HueRange]) -> None:
    # Every 15th red, odd and even in turn, with all greens and blues.
    assert_codes_are_the_definitions(range(0, 256, 15), reading=reading)


def test_each_byte_of_the_table_belongs_to_two_colours() -> None:
    table = colour_table(vivid_rule="chroma", hue_range="full")
    num_colours_X = np.zeros(1 << 23, dtype=np.uint8)
    for red in range(256):
        address = table.red_L[red] + table.green_L[:, None] + table.blue_L
        num_colours_X[address] += 1
        np.testing.assert_array_equal(table.red_L[red], table.red_L[red ^ 1])
    assert np.all(num_colours_X == 2)


@needs_shared
def test_stored_pictures_have_the_stored_values() -> None:
    expected = json.loads((SHARED / "expected.json").read_text())["images"]
    for name, values in expected.items():
        image = np.asarray(Image.open(SHARED / name))
        fast = colour_rewards(image[None])
        assert fast.num_vivid_N[0] == values["vivid_pixels"]
        assert fast.hue_count_NB[0].tolist() == values["hue_hist_atan2_all"]
        assert fast.reward_N[0] == pytest.approx(values["reward"], abs=1e-12)
        assert fast.vivid_N[0] == pytest.approx(values["vivid_fraction"], abs=1e-12)
        assert fast.entropy_N[0] == pytest.approx(values["entropy_nats_atan2_all"], abs=1e-12)
        variants = values["variants"]
        other = colour_rewards(image[None], vivid_rule="squared", hue_range="half")
        assert other.hue_count_NB[0].tolist() == variants["hue_hist_arctan_all"]
        assert other.vivid_N[0] == variants["fraction_chroma2_gt_10"]
        assert other.entropy_N[0] == pytest.approx(variants["entropy_arctan_all"], abs=1e-12)


@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(0, 3),
    # Around the kernel's blocks of 254 pixels.
    size=st.sampled_from([(1, 1), (1, 253), (2, 127), (5, 51), (3, 300)]),
    spread=st.sampled_from([2, 16, 256]),
    reading=st.sampled_from(READINGS),
)
@settings(max_examples=60, deadline=None)
def test_fast_form_equals_the_definition(
    seed: int,
    num: int,
    size: tuple[int, int],
    spread: int,
    reading: tuple[VividRule, HueRange],
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 257 - spread)
    images = (base + rng.integers(0, spread, (num, *size, 3))).astype(np.uint8)
    before = images.copy()
    options: dict[str, Any] = {"vivid_rule": reading[0], "hue_range": reading[1]}
    assert fast_counts(images, **options) == [counts_of(image, **options) for image in images]
    fast = colour_rewards(images, **options)
    for n, image in enumerate(images):
        slow = colour_reward(image, **options)
        assert fast.reward_N[n] == pytest.approx(slow.reward, abs=1e-15)
    assert fast.num_pixels == size[0] * size[1]
    assert np.all(fast.reward_N >= 0) and np.all(fast.reward_N <= math.log(7) + 1e-15)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (1, 0, 255)])
def test_no_counter_overflows_on_one_colour(colour: tuple[int, int, int]) -> None:
    image = np.broadcast_to(np.array(colour, dtype=np.uint8), (2, 40, 50, 3))
    assert fast_counts(image) == [counts_of(image[0])] * 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_count_as_their_levels(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 17, 19, 3)).astype(dtype)
    # Exact halves between two levels, and beyond both ends.
    images[0, 0, :, 0] = (np.arange(19) + 0.5) / 127.5 - 1
    images[0, 1, :3] = [
        [-1.0, 1.0, 0.0],
        [-3.0, 3.0, -0.0],
        [1e30 if dtype != np.float16 else 9] * 3,
    ]
    assert fast_counts(images) == fast_counts(round_to_levels(images))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_floats_that_are_not_finite_are_refused(dtype: Any, broken: float) -> None:
    images = np.zeros((3, 20, 20, 3), dtype=dtype)
    images[1, 19, 19, 2] = broken
    with pytest.raises(ValueError, match="picture 1 .* NaN or infinite"):
        colour_rewards(images)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_order_of_pixels_and_batch_mates_change_no_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    shuffled = rng.permutation(images[1].reshape(-1, 3)).reshape(20, 30, 3)
    whole = colour_rewards(images)
    for alone in (images[1], shuffled, images[1, ::-1], images[1].transpose(1, 0, 2)):
        assert colour_rewards(alone[None]).reward_N[0] == whole.reward_N[1]


def num_signatures() -> list[int]:
    kernels: list[Any] = [_count_levels, _count_floats]
    return [len(kernel.signatures) for kernel in kernels]


def test_warming_up_leaves_nothing_to_compile() -> None:
    warm_up()
    num_compiled = num_signatures()
    image = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    colour_rewards(image[:, ::2])
    colour_rewards(image.astype(np.float16))
    image.flags.writeable = False
    colour_rewards(image)
    colour_rewards(np.broadcast_to(np.float32(0), (1, 4, 4, 3)))
    assert num_signatures() == num_compiled


def test_what_is_no_batch_of_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, H, W, 3\] .* got \[4, 4, 3\]"):
        colour_rewards(np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="got int64"):
        colour_rewards(np.zeros((1, 4, 4, 3), dtype=np.int64))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without pixels"):
        colour_rewards(np.zeros((1, 0, 4, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="vivid_rule"):
        colour_rewards(np.zeros((1, 4, 4, 3), dtype=np.uint8), vivid_rule="hue")  # type: ignore[arg-type]
