"""A learner step with rewards of tokens that were not drawn, against its formula written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.config import AdamWConfig, LearnerConfig
from learner.learner import Learner
from rewardtune.datasets.example import Category
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.records import Group, Published, Score, ScoredGroup, View
from rewardtune.tasks.detection.codec import Boxes
from rewardtune.tasks.detection.task import DetectionTask

GROUPS, SAMPLES, BOXES, CLASSES, TEMPERATURE = 4, 3, 2, 3, 0.7
OPTIONS = {"max_boxes": BOXES, "confidence_weight": 0.3, "class_rewards": True}
TASK = DetectionTask(
    OPTIONS, categories=[Category(id=c, name=str(c), num_instances=10) for c in range(CLASSES)]
)
LENGTH = TASK.vocabulary.max_tokens


def made_policy() -> EncoderDecoder:
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=16,
            patch_size=8,
            width=32,
            num_heads=2,
            mlp_width=40,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=TASK.vocabulary.size,
            sequence_length=LENGTH,
        )
    )
    torch.nn.init.normal_(policy.decoder.head.project.kernel, std=0.2)
    return policy


def made_group(rng: np.random.Generator, ordinal: int) -> ScoredGroup:
    boxes = Boxes(
        yxyx_N4=np.sort(rng.random((BOXES, 2, 2)), axis=1).reshape(BOXES, 4),
        label_N=rng.integers(0, CLASSES, BOXES),
        confidence_N=np.full(BOXES, 2),
    )
    tokens_ST = np.stack([TASK.codec.encode(boxes, rng=rng) for _ in range(SAMPLES)])
    if ordinal == 0:
        tokens_ST[0, 10] = 7  # no class's token
    if ordinal == 1:
        tokens_ST[1, 6:] = 0  # no second box
    # Numbers as a task would tell them: that of the drawn class is the step's own.
    class_reward = rng.standard_normal((SAMPLES, BOXES, CLASSES))
    label_SP = TASK.codec.decode(tokens_ST).label_N
    step_reward = np.take_along_axis(class_reward, label_SP[..., None], axis=-1)[..., 0]
    group = Group(
        ordinal=ordinal,
        example=ordinal,
        view=View(),
        published=Published(0, 0),
        tokens_ST=tokens_ST,
        log_probs_ST=rng.normal(-6.9, 0.3, (SAMPLES, LENGTH)).astype(np.float32),
        probe_log_probs_STQ=np.zeros((SAMPLES, LENGTH, 2), dtype=np.float32),
    )
    aux = {
        "step_reward": step_reward,
        "class_reward": class_reward,
        "match_iou": rng.random((SAMPLES, BOXES)),
    }
    score = Score(reward_S=step_reward.sum(axis=1), aux=aux, is_valid=ordinal != 3)
    return ScoredGroup(group=group, score=score)


def written_out(policy: EncoderDecoder, scored: list[ScoredGroup], images: Tensor) -> Tensor:
    """The loss, one rollout and one box at a time."""
    first = TASK.codec.first_class
    total, num_valid = torch.zeros(()), sum(s.score.is_valid for s in scored)
    for row, item in enumerate(scored):
        if not item.score.is_valid:
            continue
        tokens_ST = torch.from_numpy(item.group.tokens_ST).long()
        context = policy.encode(images[row : row + 1])
        logits_STV = policy.logits(context, tokens_ST)
        log_prob_STV = (logits_STV / TEMPERATURE).log_softmax(-1)
        drawn_ST = log_prob_STV.gather(-1, tokens_ST[..., None])[..., 0]
        rewards = torch.from_numpy(item.score.aux["class_reward"]).float()
        own = torch.from_numpy(item.score.aux["step_reward"]).float()
        is_class = tokens_ST >= first
        value = torch.zeros(SAMPLES, BOXES)
        chance = [[torch.empty(0)] * BOXES for _ in range(SAMPLES)]
        for s in range(SAMPLES):
            for p in range(BOXES):
                at = 6 * p + 4
                chance[s][p] = log_prob_STV[s, at, first:].softmax(-1)
                listed = bool(is_class[s, at])
                mean = (chance[s][p].detach() * rewards[s, p]).sum()
                value[s, p] = mean if listed else own[s, p]
        targets = TASK.token_targets(item.group, item.score)
        assert targets is not None
        for s in range(SAMPLES):
            ratio = torch.zeros(())
            for p in range(BOXES):
                at, steps = 6 * p + 4, slice(6 * p, 6 * p + 6)
                behaviour = torch.from_numpy(item.group.log_probs_ST[s, steps])
                ratio = ratio + (drawn_ST[s, steps].detach() - behaviour).sum()
                weight = ratio.exp().clamp(max=2.0)
                others = [value[o, p] for o in range(SAMPLES) if o != s]
                advantage = value[s, p] - torch.stack(others).mean()
                log_prob = drawn_ST[s, steps].sum()
                exact = torch.zeros(())
                if is_class[s, at]:
                    label = int(tokens_ST[s, at]) - first
                    log_prob = log_prob - chance[s][p][label].log()
                    exact = (chance[s][p] * rewards[s, p]).sum()
                gain = weight * (advantage * log_prob + exact)
                total = total - gain / (SAMPLES * LENGTH)
                three = logits_STV[s, at + 1].log_softmax(-1)[:3]
                wanted = torch.from_numpy(targets.probabilities_SPK[s, p])
                total = total - targets.weight * (wanted * three).sum() / (SAMPLES * BOXES)
    return total / num_valid


def test_a_step_has_the_gradient_of_the_formula_written_out() -> None:
    rng = np.random.default_rng(3)
    scored = [made_group(rng, ordinal) for ordinal in range(GROUPS)]
    images = torch.from_numpy(rng.random((GROUPS, 16, 16, 3), dtype=np.float32) * 2 - 1)
    policy, other = made_policy(), made_policy()
    config = LearnerConfig(
        estimator="leave_one_out",
        discount=0.0,
        batch_size=GROUPS,
        num_steps=10,
        micro_batch=2,
        optimizer=AdamWConfig(learning_rate=1e-3),
    )
    learner = Learner(policy, config, task=TASK, temperature=TEMPERATURE, weighs_importance=True)
    report = learner.reinforce(scored, images)
    loss = written_out(other, scored, images)
    loss.backward()
    assert report.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    for (name, found), (_, expected) in zip(
        policy.named_parameters(), other.named_parameters(), strict=True
    ):
        assert found.grad is not None and expected.grad is not None, name
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("settings", "got"),
    [
        ({"discount": 1.0}, "got 1.0 and 'leave_one_out'"),
        ({}, "got no learner.discount and 'leave_one_out'"),
        ({"discount": 0.0, "estimator": "first"}, "got 0.0 and 'first'"),
    ],
)
def test_settings_that_cannot_use_them_are_refused(settings: dict[str, Any], got: str) -> None:
    config = LearnerConfig(
        **{"estimator": "leave_one_out", **settings},
        batch_size=4,
        num_steps=10,
        micro_batch=2,
        optimizer=AdamWConfig(learning_rate=1e-3),
    )
    with pytest.raises(ValueError, match=got):
        Learner(made_policy(), config, task=TASK)
