from __future__ import annotations

from itertools import combinations

import numpy as np

from rewardtune.datasets.digits.scenes import SPLITS, Scene, SceneStyle, compose_scene, load_glyphs


def scene(seed: int) -> Scene:
    return compose_scene(load_glyphs("train"), np.random.default_rng(seed), SceneStyle())


def test_no_digit_is_in_two_splits() -> None:
    glyphs = {split: load_glyphs(split) for split in SPLITS}
    written = {
        split: {glyph.tobytes() for glyph in known.strokes_G88} for split, known in glyphs.items()
    }
    for one, other in combinations(SPLITS, 2):
        assert not written[one] & written[other]
    assert sum(len(known.labels_G) for known in glyphs.values()) == 1797
    assert all(len(np.unique(known.labels_G)) == 10 for known in glyphs.values())


def test_a_scene_follows_from_its_random_numbers() -> None:
    first, again, other = scene(3), scene(3), scene(4)
    np.testing.assert_array_equal(first.image_HWC, again.image_HWC)
    np.testing.assert_array_equal(first.masks_NHW, again.masks_NHW)
    np.testing.assert_array_equal(first.texture_HW, again.texture_HW)
    assert not np.array_equal(first.image_HWC, other.image_HWC)


def test_each_pixel_belongs_to_at_most_one_digit_and_every_digit_shows() -> None:
    for seed in range(20):
        masks_NHW = scene(seed).masks_NHW
        assert 1 <= len(masks_NHW) <= SceneStyle().max_digits
        assert masks_NHW.sum(axis=0).max() <= 1
        assert masks_NHW.any(axis=(1, 2)).all()
