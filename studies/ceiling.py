"""What no policy can beat, measured like one: the annotations in a policy's place.

Axes: T tokens, Q probed tokens (none here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Framed, Square
from rewardtune.datasets.images import decode_image
from rewardtune.records import View
from rewardtune.tasks.colorization.metric import colour_metrics
from rewardtune.tasks.task import Task
from rewardtune.tasks.uvim.task import StageOneTask

VIEW = View()


def labels_through_stage_one(task: Task, scenes: Dataset) -> Mapping[str, float]:
    """Metrics of the annotations' own codes: all that is lost is lost in stage I."""
    assert isinstance(task, StageOneTask)
    input_size = task.codec.config.input_size
    rng = np.random.default_rng(0)  # stage I draws nothing
    records, rewards = [], []
    for index in range(len(scenes)):
        framed = Framed.of(scenes.example(index), VIEW, Square(side=input_size))
        tokens_T = task.target_tokens(framed, rng=rng)
        decoded = task.decode(tokens_T[None], framed)
        score = task.score(decoded, framed)
        rewards.append(float(score.reward_S[0]))
        records += task.predict(
            decoded,
            np.zeros(len(tokens_T), np.float32),
            np.zeros((len(tokens_T), 0), np.float32),
            framed,
            score_rule=task.score_rules[0],
        )
    metrics = task.evaluate(records, scenes, indices=range(len(scenes)))
    return {**metrics, "reward": float(np.mean(rewards))}


def pictures_themselves(task: Task, scenes: Dataset) -> Mapping[str, float]:
    """What real colours are like: the originals, judged as if they had been predicted."""
    figures = [
        asdict(colour_metrics(decode_image(scenes.example(index).image)))
        for index in range(len(scenes))
    ]
    means = {name: float(np.mean([of[name] for of in figures])) for name in figures[0]}
    return {"colour_reward": means["reward"], **means}
