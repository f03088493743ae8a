"""Scored groups as the tensors that a step is made of."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from learner.estimators.batch import reinforce_batch
from learner.estimators.config import EstimatorConfig
from learner.estimators.leave_one_out import LeaveOneOut
from rewardtune.records import Group, Published, Score, ScoredGroup, TokenRewards, View
from rewardtune.tasks.task import Task
from rewardtune.tasks.vocabulary import Vocabulary

LENGTH = 6
EVERY = LeaveOneOut(EstimatorConfig(estimator="leave_one_out"))
STEP_REWARD_SP = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, -0.3]])


class _NoTargets:
    vocabulary = Vocabulary(task="none", size=2, max_tokens=LENGTH)

    def token_targets(self, group: Group, score: Score) -> None:
        return None


TASK = cast("Task", _NoTargets())


def scored(ordinal: int, score: Score) -> ScoredGroup:
    num_samples = 2
    group = Group(
        ordinal=ordinal,
        example=0,
        view=View(),
        published=Published(0, 0),
        tokens_ST=np.ones((num_samples, LENGTH), dtype=np.int32),
        log_probs_ST=np.zeros((num_samples, LENGTH), dtype=np.float32),
        probe_log_probs_STQ=np.zeros((num_samples, LENGTH, 0), dtype=np.float32),
    )
    return ScoredGroup(group=group, score=score)


def told_by_step(reward_S: np.ndarray | None = None) -> Score:
    reward_S = STEP_REWARD_SP.sum(axis=1) if reward_S is None else reward_S
    return Score(reward_S=reward_S, aux={"step_reward": STEP_REWARD_SP})


INVALID = Score(reward_S=np.zeros(2), is_valid=False)


def test_without_discount_a_rollout_is_judged_as_a_whole() -> None:
    batch = reinforce_batch(
        [scored(0, told_by_step())], task=TASK, config=EstimatorConfig(estimator="leave_one_out")
    )
    advantage_GRP = EVERY.advantages(batch.return_GSP)
    np.testing.assert_allclose(advantage_GRP.numpy(), [[[1.8], [-1.8]]], rtol=1e-6)


@pytest.mark.parametrize(
    ("discount", "advantage_P"),
    [(0.0, [1.0, 0.5, 0.3]), (1.0, [1.8, 0.8, 0.3]), (0.5, [1.325, 0.65, 0.3])],
)
def test_with_discount_its_steps_are_and_invalid_groups_keep_their_place(
    discount: float, advantage_P: list[float]
) -> None:
    batch = reinforce_batch(
        [scored(0, INVALID), scored(1, told_by_step())],
        task=TASK,
        config=EstimatorConfig(estimator="leave_one_out", discount=discount),
    )
    advantage_GRP = EVERY.advantages(batch.return_GSP)
    assert advantage_GRP[0].abs().max() == 0
    np.testing.assert_allclose(advantage_GRP[1, 0].numpy(), advantage_P, rtol=1e-6)
    np.testing.assert_allclose(advantage_GRP[1, 1].numpy(), np.negative(advantage_P))


class _TokenRewards(_NoTargets):
    has_token_rewards = True

    def token_rewards(self, group: Group, score: Score) -> TokenRewards:
        return TokenRewards(
            positions_P=np.array([0, 2, 4]),
            token_ids_K=np.array([1, 3]),
            reward_SPK=np.stack([STEP_REWARD_SP, STEP_REWARD_SP + 1], axis=-1),
        )


def test_rewards_of_tokens_that_were_not_drawn_come_along_and_are_0_for_invalid_groups() -> None:
    batch = reinforce_batch(
        [scored(0, INVALID), scored(1, told_by_step())],
        task=cast("Task", _TokenRewards()),
        config=EstimatorConfig(estimator="leave_one_out", discount=0.0),
    )
    assert batch.token_rewards is not None
    rewards = batch.token_rewards.reward_GSPK.numpy()
    assert np.all(rewards[0] == 0)
    np.testing.assert_allclose(rewards[1, ..., 1], STEP_REWARD_SP + 1, rtol=1e-6)
    np.testing.assert_allclose(batch.return_GSP[1], STEP_REWARD_SP, rtol=1e-6)


def test_a_batch_of_invalid_groups_alone_needs_no_steps() -> None:
    batch = reinforce_batch([scored(0, INVALID)], task=TASK, config=EstimatorConfig(discount=0.0))
    assert batch.num_valid == 0


def test_a_task_that_does_not_tell_rewards_by_step_is_named_as_the_reason() -> None:
    with pytest.raises(ValueError, match=r"learner\.discount needs rewards by step.* leave"):
        reinforce_batch(
            [scored(0, Score(reward_S=np.ones(2)))],
            task=TASK,
            config=EstimatorConfig(discount=0.0),
        )


@pytest.mark.parametrize(
    "score",
    [
        told_by_step(np.array([1.5, 0.0])),
        Score(reward_S=np.ones(2), aux={"step_reward": np.full((2, 4), 0.25)}),
    ],
    ids=["another sum", "uneven steps"],
)
def test_steps_that_do_not_make_up_the_reward_are_refused(score: Score) -> None:
    with pytest.raises(ValueError, match="of group 7 must split sequences of 6 tokens"):
        reinforce_batch([scored(7, score)], task=TASK, config=EstimatorConfig(discount=0.0))
