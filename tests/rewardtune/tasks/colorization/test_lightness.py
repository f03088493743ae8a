from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rewardtune.tasks.colorization.lab import srgb_to_lab
from rewardtune.tasks.colorization.lightness import HIGHEST, lightness_decibels
from tests.rewardtune.tasks.uvim.small import example


def test_decibels_are_those_of_lightness_alone() -> None:
    rng = np.random.default_rng(0)
    original, picture = rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(original).save(stream, format="PNG")
    shown = replace(example(), image=stream.getvalue())
    lost = srgb_to_lab(picture)[..., 0] - srgb_to_lab(original)[..., 0]
    expected = 10 * np.log10(100.0**2 / np.mean(lost**2))
    assert lightness_decibels([picture, original], shown) == [pytest.approx(expected), HIGHEST]
