"""What tells that the reward is gamed: its definition, and the fast form beside it."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.tasks.colorization.definition import classify, colour_reward
from rewardtune.tasks.colorization.lab import srgb_to_lab
from rewardtune.tasks.colorization.tripwire import (
    ColourTripwires,
    colour_tripwires,
    total_variation,
)
from rewardtune.tasks.colorization.tripwire_kernel import _watch, batch_tripwires, warm_up

RED, GREEN, BLUE, GREY = [200, 30, 30], [30, 200, 30], [30, 30, 200], [90, 90, 90]


def noise(seed: int = 0, *, height: int = 12, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(*colours: list[int]) -> np.ndarray:
    return np.array([colours], dtype=np.uint8)


def test_total_variation_is_the_mean_step_between_neighbours() -> None:
    assert total_variation(np.array([[0.0, 3.0], [1.0, 1.0]])) == (3 + 0 + 1 + 2) / 4
    assert total_variation(np.full((4, 5), 7.0)) == 0
    assert total_variation(np.array([[5.0]])) == 0


def test_the_dominant_hue_is_that_of_the_vivid_pixels_alone() -> None:
    assert colour_tripwires(picture(RED, RED, GREEN, GREY)).dominant_hue_ratio == 2 / 3
    assert colour_tripwires(picture(RED, GREEN, BLUE)).dominant_hue_ratio == 1 / 3
    assert colour_tripwires(picture(GREY, GREY)).dominant_hue_ratio == 0


def test_chroma_is_the_mean_distance_from_grey() -> None:
    lab = srgb_to_lab(picture(RED, GREEN))[0]
    expected = (math.hypot(*lab[0, 1:]) + math.hypot(*lab[1, 1:])) / 2
    assert colour_tripwires(picture(RED, GREEN)).chroma == pytest.approx(expected, rel=1e-14)
    assert colour_tripwires(picture(GREY)).chroma < 0.01
    corners = np.array(np.meshgrid(*[[0, 255]] * 3)).reshape(3, 1, 8).T.astype(np.uint8)
    chromas = [colour_tripwires(corner[None]).chroma for corner in corners]
    assert max(chromas) == pytest.approx(134, abs=0.5)
    assert np.argmax(chromas) == np.flatnonzero((corners == [0, 0, 255]).all(axis=(1, 2)))[0]


def test_clipped_is_a_pixel_with_a_channel_at_either_end() -> None:
    shown = picture([0, 90, 90], [1, 254, 90], [90, 255, 90], [255, 0, 255])
    assert colour_tripwires(shown).clipped_ratio == 3 / 4


def test_each_way_of_gaming_the_reward_trips_its_wire() -> None:
    rows, columns = np.indices((24, 24))
    # A made photograph: soft patches of three tints between greys.
    tints = np.array([[130, 110, 90], [90, 120, 100], [100, 105, 140], [110, 110, 110]])
    photograph = (tints[(rows // 12 * 2 + columns // 12)] + rows[..., None]).astype(np.uint8)
    plain = colour_tripwires(photograph)
    assert colour_tripwires(noise(height=24, width=24)).total_variation_a > 9 * (
        plain.total_variation_a
    )
    sepia = (photograph.mean(axis=-1, keepdims=True) * np.array([1.4, 1.05, 0.6])).astype(np.uint8)
    assert colour_tripwires(sepia).dominant_hue_ratio > 0.9 > plain.dominant_hue_ratio
    hues = np.array([RED, GREEN, BLUE, [200, 200, 0]])[rows // 6 % 2 * 2 + columns // 6 % 2]
    vivid = np.clip((hues - 100) * 3 + 100, 0, 255).astype(np.uint8)
    saturated = colour_tripwires(vivid)
    assert saturated.chroma > 3 * plain.chroma and saturated.clipped_ratio == 1.0
    assert plain.clipped_ratio == 0
    assert colour_reward(vivid).reward > colour_reward(photograph).reward


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(0, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 40),
    spread=st.sampled_from([1, 3, 40, 256]),
    reading=st.sampled_from([("chroma", "full"), ("squared", "full"), ("chroma", "half")]),
)
def test_the_fast_form_equals_the_definition(
    seed: int, num: int, height: int, width: int, spread: int, reading: tuple[str, str]
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 257 - spread, (num, 1, 1, 3))
    images = (base + rng.integers(0, spread, (num, height, width, 3))).astype(np.uint8)
    before = images.copy()
    options: dict[str, Any] = {"vivid_rule": reading[0], "hue_range": reading[1]}
    fast = batch_tripwires(images, **options)
    assert list(fast) == [field.name for field in fields(ColourTripwires)]
    for n, image in enumerate(images):
        slow = asdict(colour_tripwires(image, **options))
        for name, value in slow.items():
            assert fast[name][n] == pytest.approx(value, rel=1e-11, abs=1e-10), name
        for name in ("dominant_hue_ratio", "clipped_ratio"):
            assert fast[name][n] == slow[name]
        if classify(image, **options).is_vivid.any():
            assert 1 / 7 <= slow["dominant_hue_ratio"] <= 1
        assert 0 <= slow["chroma"] < 134.5
    np.testing.assert_array_equal(images, before)


def test_batch_mates_and_layout_in_memory_change_no_bit() -> None:
    images = np.stack([noise(n) for n in range(3)])
    together = batch_tripwires(images)
    alone = batch_tripwires(images[1:2])
    turned = np.asfortranarray(images)
    turned.flags.writeable = False
    for name, value_N in together.items():
        assert alone[name][0] == value_N[1]
        np.testing.assert_array_equal(batch_tripwires(turned)[name], value_N)


@pytest.mark.slow
def test_warming_up_leaves_nothing_to_compile() -> None:
    warm_up()
    kernel: Any = _watch
    num_compiled = len(kernel.signatures)
    image = noise()[None]
    batch_tripwires(image[:, ::2])
    image.flags.writeable = False
    batch_tripwires(image)
    assert len(kernel.signatures) == num_compiled


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\], got float32"):
        batch_tripwires(np.zeros((1, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=r"got uint8 \[4, 4, 3\]"):
        batch_tripwires(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="without pixels"):
        batch_tripwires(np.zeros((1, 0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"with pixels in it, got \[0, 4, 3\]"):
        colour_tripwires(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="vivid_rule"):
        colour_tripwires(noise(), vivid_rule="hue")  # type: ignore[arg-type]
