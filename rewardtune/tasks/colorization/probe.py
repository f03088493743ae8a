"""Colourfulness, checked on pictures.

The reward knows no annotation, so "perfect" is the photograph itself, and noise may well earn
more: what the table then shows is how the reward can be gamed.

Axes: H height, W width, 3 channels, S predictions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rewardtune.datasets.example import Dataset, Example
from rewardtune.datasets.images import decode_image
from rewardtune.records import Score
from rewardtune.tasks.colorization.kernel import colour_rewards
from rewardtune.tasks.colorization.metric import hasler_colourfulness, psnr
from rewardtune.tasks.probe import Claim, Kind, Measured

MAX_SIDE = 512
"""Of the pictures, in pixels: the size that a model of the paper draws."""
MAX_NOISE = 60.0
"""Standard deviation of the strongest jitter, in levels of 256."""

Picture = NDArray[np.uint8]


class ColorizationProbe:
    """Made pictures; implements ``rewardtune.tasks.probe.Probe``."""

    task = "colorization"
    kinds: Sequence[Kind] = (
        "perfect", "shuffled", "duplicated", "jittered", "random", "empty",
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any], dataset: Dataset) -> None:
        """
        Args:
            options: keyword arguments of ``colour_rewards``: vivid_rule, hue_range.

        Raises:
            ValueError: an option that it does not know.
        """
        if unknown := options.keys() - {"vivid_rule", "hue_range"}:
            raise ValueError(
                f"unknown option '{min(unknown)}' of colorization: valid options are vivid_rule "
                "and hue_range"
            )
        self._options = dict(options)
        self._dataset = dataset

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> Picture:
        original_HW3 = _original(example)
        if kind == "empty":
            grey_HW = original_HW3.mean(axis=-1).round().astype(np.uint8)
            return np.repeat(grey_HW[..., None], 3, axis=-1)
        if kind == "shuffled":
            return _in_another_order(original_HW3, rng)
        if kind == "duplicated":
            return np.concatenate([original_HW3, original_HW3], axis=1)
        if kind == "jittered":
            noise_HW3 = rng.normal(0.0, rng.uniform(0.0, MAX_NOISE), original_HW3.shape)
            return np.clip(np.rint(original_HW3 + noise_HW3), 0, 255).astype(np.uint8)
        if kind == "random":
            return rng.integers(256, size=original_HW3.shape, dtype=np.uint8)
        return original_HW3

    def score(self, predictions: Sequence[Picture], example: Example) -> Score:
        if len({picture.shape for picture in predictions}) == 1:
            batches = [np.stack(predictions)]
        else:
            batches = [picture[None] for picture in predictions]
        rewards = [colour_rewards(batch, **self._options) for batch in batches]
        return Score(
            reward_S=np.concatenate([each.reward_N for each in rewards]),
            components={
                "vivid": np.concatenate([each.vivid_N for each in rewards]),
                "entropy": np.concatenate([each.entropy_N for each in rewards]),
            },
        )

    def decoded(self, predictions: Sequence[Picture], example: Example) -> Sequence[Picture]:
        return predictions

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[Picture]]:
        jittered_HW3 = self.draw("jittered", example, rng)
        return (
            Claim("pixel order", jittered_HW3, _in_another_order(jittered_HW3, rng)),
            Claim("pixel order", jittered_HW3, np.ascontiguousarray(jittered_HW3[:, ::-1])),
            Claim("picture twice", jittered_HW3, np.concatenate([jittered_HW3, jittered_HW3])),
        )

    def measure(self, predictions: Sequence[Picture], indices: Sequence[int]) -> Measured:
        """Hasler and Suesstrunk's colourfulness; PSNR of pictures of their original's size."""
        originals = [_original(self._dataset.example(index)) for index in indices]
        per_example_N = {
            "colourfulness": np.array([hasler_colourfulness(picture) for picture in predictions]),
            "psnr": np.array(
                [
                    psnr(picture, original) if picture.shape == original.shape else math.nan
                    for picture, original in zip(predictions, originals, strict=True)
                ]
            ),
        }
        return Measured(
            overall={name: _mean_of_finite(value_N) for name, value_N in per_example_N.items()},
            per_example_N=per_example_N,
        )


def _original(example: Example) -> Picture:
    picture = Image.fromarray(decode_image(example.image))
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
    return np.array(picture)


def _in_another_order(picture_HW3: Picture, rng: np.random.Generator) -> Picture:
    shuffled_N3: Picture = rng.permutation(picture_HW3.reshape(-1, 3))
    return shuffled_N3.reshape(picture_HW3.shape)


def _mean_of_finite(value_N: NDArray[np.float64]) -> float:
    """NaN if there are none."""
    finite = value_N[np.isfinite(value_N)]
    return float(finite.mean()) if len(finite) else math.nan
