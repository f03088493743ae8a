"""One learner step's scored groups as tensors.

Axes: G groups, S rollouts, R trained rollouts, T tokens, P positions or steps, K token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.advantage import advantages, discounted_returns
from learner.config import Estimator
from rewardtune.policies.policy import TokenQueries
from rewardtune.records import ScoredGroup, TokenTargets
from rewardtune.tasks.task import Task, TokenRewardsTask


@dataclass(frozen=True, slots=True)
class SoftTargets:
    queries: TokenQueries
    probability_GRPK: Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class Alternatives:
    """What steps would have earned had another token been drawn at one of their positions."""

    queries: TokenQueries
    reward_GRPK: Tensor
    drawn_reward_GRP: Tensor
    """Of the token that was drawn."""


@dataclass(frozen=True, slots=True)
class ReinforceBatch:
    """Invalid groups keep their place, so that shapes are fixed, with advantage and weight 0."""

    tokens_GRT: Tensor
    behaviour_log_prob_GRT: Tensor
    advantage_GRP: Tensor
    """Of steps of T / P tokens; P = 1 where a rollout is judged as a whole."""
    is_valid_G: Tensor
    """1.0 or 0.0."""
    targets: SoftTargets | None
    alternatives: Alternatives | None

    @property
    def num_valid(self) -> int:
        return int(self.is_valid_G.sum())


def reinforce_batch(
    scored: Sequence[ScoredGroup],
    *,
    task: Task,
    estimator: Estimator,
    has_baseline: bool,
    discount: float | None = None,
) -> ReinforceBatch:
    """Stack scored groups, in the order given.

    Raises:
        ValueError: a valid group lacks the soft targets that others have, or rewards by step
            although there is a ``discount``.
    """
    is_valid_G = torch.tensor([float(s.score.is_valid) for s in scored])
    return_GSP = _rewards(scored)[..., None] if discount is None else _returns(scored, discount)
    num_trained = 1 if estimator == "first" else return_GSP.shape[1]
    # Float64 up to here: rewards of a group can differ in digits that float32 drops.
    advantage_GRP = advantages(return_GSP, estimator=estimator, has_baseline=has_baseline).float()
    tokens_GRT = torch.from_numpy(np.stack([s.group.tokens_ST[:num_trained] for s in scored]))
    behaviour = np.stack([s.group.log_probs_ST[:num_trained] for s in scored])
    return ReinforceBatch(
        tokens_GRT=tokens_GRT.long(),
        behaviour_log_prob_GRT=torch.from_numpy(behaviour),
        advantage_GRP=advantage_GRP * is_valid_G[:, None, None],
        is_valid_G=is_valid_G,
        targets=_soft_targets(scored, task, num_trained),
        alternatives=_alternatives(scored, task, return_GSP),
    )


def _rewards(scored: Sequence[ScoredGroup]) -> Tensor:
    """[G, S], 0 where nothing is known."""
    return torch.from_numpy(
        np.stack(
            [
                s.score.reward_S if s.score.is_valid else np.zeros(len(s.group.tokens_ST))
                for s in scored
            ]
        )
    )


def _returns(scored: Sequence[ScoredGroup], discount: float) -> Tensor:
    """What each step [G, S, P] answers for."""
    given = {i: _step_rewards(s) for i, s in enumerate(scored) if s.score.is_valid}
    if not given:
        return _rewards(scored)[..., None]
    nothing_SP = np.zeros_like(next(iter(given.values())))
    reward_GSP = np.stack([given.get(i, nothing_SP) for i in range(len(scored))])
    return discounted_returns(torch.from_numpy(reward_GSP), discount=discount)


def _step_rewards(scored: ScoredGroup) -> NDArray[np.float64]:
    score, length = scored.score, scored.group.tokens_ST.shape[1]
    reward_SP = score.aux.get("step_reward")
    if reward_SP is None:
        raise ValueError(
            "learner.discount needs rewards by step, which this task's score does not tell "
            "(step_reward in its aux): leave learner.discount out"
        )
    if length % reward_SP.shape[1] or not np.allclose(reward_SP.sum(axis=1), score.reward_S):
        raise ValueError(
            f"step_reward of group {scored.group.ordinal} must split sequences of {length} tokens "
            f"evenly and sum to their rewards, got {reward_SP.shape[1]} steps, in the first "
            f"rollout with sum {reward_SP[0].sum()} for reward {score.reward_S[0]}"
        )
    return reward_SP


def _alternatives(
    scored: Sequence[ScoredGroup], task: Task, return_GSP: Tensor
) -> Alternatives | None:
    if not (isinstance(task, TokenRewardsTask) and task.has_token_rewards):
        return None
    given = {
        row: task.token_rewards(s.group, s.score)
        for row, s in enumerate(scored)
        if s.score.is_valid
    }
    if not given:
        return None
    first = next(iter(given.values()))
    nothing_SPK = np.zeros_like(first.reward_SPK)
    rewards = [given[row].reward_SPK if row in given else nothing_SPK for row in range(len(scored))]
    return Alternatives(
        queries=TokenQueries(
            positions_P=torch.from_numpy(first.positions_P),
            token_ids_K=torch.from_numpy(first.token_ids_K),
        ),
        reward_GRPK=torch.from_numpy(np.stack(rewards)).float(),
        drawn_reward_GRP=return_GSP.float(),
    )


def _soft_targets(
    scored: Sequence[ScoredGroup], task: Task, num_trained: int
) -> SoftTargets | None:
    found = [task.token_targets(s.group, s.score) if s.score.is_valid else None for s in scored]
    given = [targets for targets in found if targets is not None]
    if not given:
        return None
    first = given[0]
    return SoftTargets(
        queries=TokenQueries(
            positions_P=torch.from_numpy(first.positions_P),
            token_ids_K=torch.from_numpy(first.token_ids_K),
        ),
        probability_GRPK=torch.from_numpy(
            np.stack([_probabilities(targets, first)[:num_trained] for targets in found])
        ),
        weight=first.weight,
    )


def _probabilities(
    targets: TokenTargets | None, like: TokenTargets
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    if targets is None:  # only invalid groups: their weight is 0
        return np.zeros_like(like.probabilities_SPK)
    return targets.probabilities_SPK
