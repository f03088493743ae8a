"""One learner step beside the bare products of its forward and backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from bench.figure import Figure, figure
from bench.networks.floor import floor, training
from bench.networks.scenes import made_task, scored
from bench.networks.sizes import DEMO, random_images, random_policy
from bench.timing import interleaved, timed
from learner.config import AdafactorConfig, LearnerConfig
from learner.learner import Learner
from rewardtune.policies.draw import Decoding
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoderConfig

NUM_CLASSES = 10


def demo(*, is_quick: bool) -> Iterator[Figure]:
    """64 images, trained on one of 8 rollouts (the paper) and on all of them (leave one out)."""
    for num_trained in (1,) if is_quick else (1, 8):
        yield step_figure(
            f"learner.demo.step.k{num_trained}",
            DEMO,
            num_images=64,
            num_trained=num_trained,
            num_rounds=3 if is_quick else 5,
        )


def step_figure(
    name: str, config: EncoderDecoderConfig, *, num_images: int, num_trained: int, num_rounds: int
) -> Figure:
    """Seconds of a whole step: batch, forward, loss, backward, optimizer."""
    num_samples = max(2, num_trained)
    policy = random_policy(config)
    images_GHWC = random_images(num_images, config)
    task = made_task(num_classes=NUM_CLASSES, max_boxes=config.sequence_length // 6)
    samples = policy.sample(
        images_GHWC,
        torch.rand(num_images, num_samples, config.sequence_length),
        decoding=Decoding(),
        probe_tokens=task.vocabulary.probe_tokens,
    )
    groups = scored(
        samples, task=task, num_classes=NUM_CLASSES, num_objects=8, size=config.input_size
    )
    learner = Learner(
        policy,
        LearnerConfig(
            estimator="first" if num_trained == 1 else "leave_one_out",
            batch_size=num_images,
            micro_batch=num_images,
            num_steps=1000,
            optimizer=AdafactorConfig(learning_rate=1e-5),
        ),
        task=task,
    )

    def step() -> None:
        batch = [
            replace(s, group=replace(s.group, ordinal=ordinal))
            for s, ordinal in zip(groups, learner.ledger.next_ordinals, strict=True)
        ]
        learner.reinforce(batch, images_GHWC)

    bare = floor(training(config, num_images=num_images, num_samples=num_trained))
    seconds = interleaved({"ours": timed(step), "floor": bare}, num_rounds=num_rounds)
    return figure(name, seconds["ours"], floor_seconds=seconds["floor"])
