"""Annotations in a policy's place are measured like one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rewardtune.datasets.frame import Framed, Square
from rewardtune.datasets.images import decode_image
from rewardtune.tasks.colorization.definition import colour_reward
from studies.ceiling import VIEW, labels_through_stage_one, pictures_themselves
from tests.rewardtune.tasks.colorization.test_task import task
from tests.rewardtune.tasks.rollouts import scored
from tests.rewardtune.tasks.uvim.small import SIZE, Examples, example

SCENES = Examples([example(0, image_id=1), example(1, image_id=2)])


def test_labels_through_stage_one_are_the_codes_of_each_picture(tmp_path: Path) -> None:
    built, rng = task(tmp_path), np.random.default_rng(0)
    rewards = []
    for index in range(2):
        shown = SCENES.example(index)
        codes = built.target_tokens(Framed.of(shown, VIEW, Square(side=SIZE)), rng=rng)
        rewards.append(
            scored(built, codes[None], Framed.of(shown, VIEW, Square(side=SIZE))).reward_S[0]
        )
    figures = labels_through_stage_one(built, SCENES)
    assert figures["reward"] == pytest.approx(np.mean(rewards))
    assert figures["psnr"] > 0


def test_the_pictures_themselves_have_the_rewards_of_originals(tmp_path: Path) -> None:
    figures = pictures_themselves(task(tmp_path), SCENES)
    originals = [decode_image(SCENES.example(index).image) for index in range(2)]
    expected = np.mean([colour_reward(original).reward for original in originals])
    assert figures["colour_reward"] == pytest.approx(expected)
