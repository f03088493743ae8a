from __future__ import annotations

import re

import numpy as np

from tasks.digit_captions import NUM_CAPTIONS, describe
from tasks.digits import Scene

PLAIN, STRIPES = 0, 1


def laid_out(*digits: tuple[int, tuple[slice, slice]], texture: int = PLAIN) -> Scene:
    masks_NHW = np.zeros((len(digits), 20, 20), dtype=bool)
    for mask_HW, (_, window) in zip(masks_NHW, digits, strict=True):
        mask_HW[window] = True
    return Scene(
        image_HWC=np.zeros((20, 20, 3), dtype=np.uint8),
        labels_N=np.array([label for label, _ in digits], dtype=np.int64),
        masks_NHW=masks_NHW,
        texture_HW=np.full((20, 20), texture),
    )


SEVEN_LEFT_OF_EIGHT = laid_out((7, np.s_[8:12, 1:4]), (8, np.s_[7:13, 14:19]))


def sentences(scene: Scene) -> set[str]:
    """All that the grammar says of a scene within many draws."""
    found: set[str] = set()
    for seed in range(60):
        captions = describe(scene, np.random.default_rng(seed))
        assert len(captions) == NUM_CAPTIONS
        found.update(captions)
    return found


def test_everything_said_of_a_simple_scene_is_true() -> None:
    either_order = r"(a seven and an eight|an eight and a seven)"
    opening = "(a picture of |here are |there are )?"
    true = [
        rf"{opening}{either_order}",
        rf"{either_order} on a plain background",
        "two digits on a plain background",
        "a seven to the left of an eight|an eight to the right of a seven",
        "the (rightmost|largest|lowest|highest) digit is an eight",
        "the (leftmost|lowest|highest) digit is a seven",
    ]
    for sentence in sentences(SEVEN_LEFT_OF_EIGHT):
        assert any(re.fullmatch(pattern, sentence) for pattern in true), sentence


def test_equal_digits_are_counted_together() -> None:
    scene = laid_out((6, np.s_[1:5, 1:5]), (6, np.s_[12:16, 1:5]), texture=STRIPES)
    said = sentences(scene)
    assert "two sixes on a striped background" in said
    assert "a six above a six" in said
    assert "a six to the left of a six" not in said


def test_a_texture_that_digits_cover_is_not_mentioned() -> None:
    scene = laid_out((1, np.s_[0:20, 0:10]))
    scene.texture_HW[:, :10] = STRIPES
    assert "a digit on a plain background" in sentences(scene)


def test_scenes_of_one_digit_and_of_none_are_described() -> None:
    assert "a one and nothing else" in sentences(laid_out((1, np.s_[2:9, 3:5])))
    assert "an empty picture" in sentences(laid_out())


def test_the_same_numbers_say_the_same() -> None:
    first, again = (describe(SEVEN_LEFT_OF_EIGHT, np.random.default_rng(1)) for _ in range(2))
    assert first == again
