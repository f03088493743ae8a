from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from rewardtune.datasets.digits.captions import COLOURS, NUM_CAPTIONS, colour_name, describe
from rewardtune.datasets.digits.scenes import Scene, SceneStyle, compose_scene, load_glyphs

PLAIN, STRIPES = 0, 1
RED, GREEN, GREY = (255, 170, 170), (170, 255, 170), (200, 200, 205)


def laid_out(
    *digits: tuple[int, tuple[slice, slice]],
    colours: Sequence[tuple[int, int, int]] = (),
    texture: int = PLAIN,
) -> Scene:
    masks_NHW = np.zeros((len(digits), 20, 20), dtype=bool)
    image_HWC = np.zeros((20, 20, 3), dtype=np.uint8)
    for n, (_, window) in enumerate(digits):
        masks_NHW[n][window] = True
        image_HWC[window] = colours[n] if colours else GREY
    return Scene(
        image_HWC=image_HWC,
        labels_N=np.array([label for label, _ in digits], dtype=np.int64),
        masks_NHW=masks_NHW,
        texture_HW=np.full((20, 20), texture),
    )


SEVEN_LEFT_OF_EIGHT = laid_out((7, np.s_[8:12, 1:4]), (8, np.s_[7:13, 14:19]), colours=(RED, GREEN))


def sentences(scene: Scene) -> set[str]:
    """All that the grammar says of a scene within many draws."""
    found: set[str] = set()
    for seed in range(60):
        captions = describe(scene, np.random.default_rng(seed))
        assert len(captions) == NUM_CAPTIONS
        found.update(captions)
    return found


def test_everything_said_of_a_simple_scene_is_true() -> None:
    seven, eight = "a red seven", "a green eight"
    both = f"{seven} and {eight}"
    true = [
        rf"(a picture of |we see |there are )?{both}",
        rf"{both} in front of a plain wall",
        rf"two digits, {both}",
        f"{seven} to the left of {eight}|{eight} to the right of {seven}",
        f"{both}, the (rightmost|largest|lowest|highest) of them green",
        f"{both}, the (leftmost|lowest|highest) of them red",
    ]
    said = sentences(SEVEN_LEFT_OF_EIGHT)
    for sentence in said:
        assert any(re.fullmatch(pattern, sentence) for pattern in true), sentence
    assert all(any(re.fullmatch(pattern, sentence) for sentence in said) for pattern in true)


def test_equal_digits_are_counted_together() -> None:
    scene = laid_out((6, np.s_[1:5, 1:5]), (6, np.s_[12:16, 1:5]), texture=STRIPES)
    said = sentences(scene)
    assert "two white sixes in front of stripes" in said
    assert "there are two white sixes" in said
    assert "two digits, two white sixes" in said
    assert "a white six above a white six" in said
    assert "a white six to the left of a white six" not in said


def test_digits_are_named_from_left_to_right_each_kind_once() -> None:
    scene = laid_out(
        (6, np.s_[1:5, 9:13]), (6, np.s_[12:16, 1:5]), (6, np.s_[12:16, 15:19]),
        colours=(GREEN, RED, RED),
    )  # fmt: skip
    assert "two red sixes and a green six" in sentences(scene)
    assert not any("a green six and" in sentence for sentence in sentences(scene))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 180, 180), "red"),
        ((250, 250, 190), "yellow"),
        ((180, 255, 190), "green"),
        ((180, 255, 250), "turquoise"),
        ((170, 180, 255), "blue"),
        ((250, 180, 255), "violet"),
        ((255, 180, 200), "red"),
        ((230, 240, 230), "white"),
        ((0, 0, 0), "white"),
    ],
)
def test_colours_have_the_names_of_their_hues(rgb: tuple[int, int, int], name: str) -> None:
    assert colour_name(np.array([rgb] * 5, dtype=np.uint8)) == name


def test_faded_borders_do_not_colour_a_digit() -> None:
    faded = np.array([[255, 170, 170]] * 5 + [[60, 90, 60]] * 4, dtype=np.uint8)
    assert colour_name(faded) == "red"


def test_a_texture_that_digits_cover_is_not_mentioned() -> None:
    scene = laid_out((1, np.s_[0:20, 0:10]))
    scene.texture_HW[:, :10] = STRIPES
    assert "a white one in front of a plain wall" in sentences(scene)


def test_scenes_of_one_digit_and_of_none_are_described() -> None:
    one = sentences(laid_out((1, np.s_[2:9, 3:5])))
    assert {"a white one and nothing else", "a white one alone"} <= one
    assert "a single digit, a white one" in one
    assert "an empty picture" in sentences(laid_out())


@pytest.mark.parametrize("num_digits", [0, 1, 2, 5, 9])
def test_the_five_captions_of_a_scene_differ(num_digits: int) -> None:
    glyphs = load_glyphs("holdout")
    style = SceneStyle(min_digits=num_digits, max_digits=num_digits)
    for seed in range(10):
        rng = np.random.default_rng([num_digits, seed])
        captions = describe(compose_scene(glyphs, rng, style), rng)
        assert len(set(captions)) == NUM_CAPTIONS


def test_every_colour_occurs_in_scenes() -> None:
    glyphs, style = load_glyphs("holdout"), SceneStyle(ink="vivid")
    rng = np.random.default_rng(0)
    said = " ".join(" ".join(describe(compose_scene(glyphs, rng, style), rng)) for _ in range(40))
    counts = {colour: said.split().count(colour) for colour in COLOURS}
    assert min(counts.values()) > 20, counts


def test_the_same_numbers_say_the_same() -> None:
    first, again = (describe(SEVEN_LEFT_OF_EIGHT, np.random.default_rng(1)) for _ in range(2))
    assert first == again
