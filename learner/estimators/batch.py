"""One learner step's scored groups as tensors: what a loss is made of, beside log-probs.

Axes: G groups, S rollouts, R trained rollouts, T tokens, P positions or steps, K token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.estimators.advantage import discounted_returns
from learner.estimators.config import EstimatorConfig
from learner.estimators.loss import live_positions
from rewardtune.policies.policy import TokenLogProbs, TokenQueries
from rewardtune.records import ScoredGroup, TokenTargets
from rewardtune.tasks.task import Task, TokenRewardsTask


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """The groups' ``TokenTargets``, of the trained rollouts."""

    queries: TokenQueries
    probability_GRPK: Tensor
    weight: float

    def rows(self, rows: slice, device: torch.device) -> SoftTargets:
        return replace(self, probability_GRPK=self.probability_GRPK[rows].to(device))


@dataclass(frozen=True, slots=True)
class StackedTokenRewards:
    """The groups' ``TokenRewards``: what steps would have earned with other tokens."""

    queries: TokenQueries
    reward_GSPK: Tensor

    def rows(self, rows: slice, device: torch.device) -> StackedTokenRewards:
        return replace(self, reward_GSPK=self.reward_GSPK[rows].to(device))


@dataclass(frozen=True, slots=True)
class BatchLogProbs:
    """What a policy says of a batch's tokens, with gradient."""

    drawn_GRT: Tensor
    soft_targets_GRPK: Tensor | None
    """At the queries of ``ReinforceBatch.soft_targets``, if it has any; so the next."""
    token_rewards_GRPK: Tensor | None


@dataclass(frozen=True, slots=True)
class ReinforceBatch:
    """Invalid groups keep their place, so that shapes are fixed, with return and weight 0."""

    tokens_GRT: Tensor
    behaviour_log_prob_GRT: Tensor
    live_GRT: Tensor
    """1.0 where a valid group's token was chosen: up to and including a stop token; else 0.0."""
    return_GSP: Tensor
    """What is to be raised, of all rollouts, in float64 and always on the CPU; of steps of T / P
    tokens, P = 1 where a rollout is judged as a whole."""
    weight_G: Tensor
    """1.0; 0.0 of an invalid group."""
    soft_targets: SoftTargets | None
    token_rewards: StackedTokenRewards | None

    @property
    def num_valid(self) -> int:
        return int(self.weight_G.sum())

    @property
    def queries(self) -> TokenQueries | None:
        """One for all positions and tokens asked about: the head's logits are there anyway."""
        asked, device = self._asked, self.tokens_GRT.device
        if not asked:
            return None
        return TokenQueries(
            positions_P=torch.cat([queries.positions_P for queries in asked]).to(device),
            token_ids_K=torch.cat([queries.token_ids_K for queries in asked]).to(device),
        )

    @property
    def _asked(self) -> list[TokenQueries]:
        parts = (self.soft_targets, self.token_rewards)
        return [part.queries for part in parts if part is not None]

    def log_probs(self, found: TokenLogProbs) -> BatchLogProbs:
        """The policy's answer, told apart by who asked."""
        asked, parts = self._asked, []
        if found.queried_GSPK is not None:
            rows = found.queried_GSPK.split([len(queries.positions_P) for queries in asked], dim=2)
            widths = [len(queries.token_ids_K) for queries in asked]
            parts = [part.split(widths, dim=3)[i] for i, part in enumerate(rows)]
        return BatchLogProbs(
            drawn_GRT=found.drawn_GST,
            soft_targets_GRPK=None if self.soft_targets is None else parts[0],
            token_rewards_GRPK=None if self.token_rewards is None else parts[-1],
        )

    def rows(self, rows: slice, device: torch.device) -> ReinforceBatch:
        """A micro-batch on the device where its log-probs are."""
        targets, rewards = self.soft_targets, self.token_rewards
        return ReinforceBatch(
            tokens_GRT=self.tokens_GRT[rows].to(device),
            behaviour_log_prob_GRT=self.behaviour_log_prob_GRT[rows].to(device),
            live_GRT=self.live_GRT[rows].to(device),
            return_GSP=self.return_GSP[rows],
            weight_G=self.weight_G[rows].to(device),
            soft_targets=None if targets is None else targets.rows(rows, device),
            token_rewards=None if rewards is None else rewards.rows(rows, device),
        )


def reinforce_batch(
    scored: Sequence[ScoredGroup], *, task: Task, config: EstimatorConfig
) -> ReinforceBatch:
    """Stack scored groups, in the order given.

    Raises:
        ValueError: a valid group lacks the soft targets that others have, or rewards by step
            although there is a ``discount``.
    """
    discount = config.discount
    return_GSP = _rewards(scored)[..., None] if discount is None else _returns(scored, discount)
    num_trained = config.num_trained(return_GSP.shape[1])
    weight_G = torch.tensor([float(s.score.is_valid) for s in scored])
    tokens_GRT = torch.from_numpy(np.stack([s.group.tokens_ST[:num_trained] for s in scored]))
    behaviour = np.stack([s.group.log_probs_ST[:num_trained] for s in scored])
    return ReinforceBatch(
        tokens_GRT=tokens_GRT.long(),
        behaviour_log_prob_GRT=torch.from_numpy(behaviour),
        live_GRT=live_positions(tokens_GRT, task.vocabulary.stop_tokens) * weight_G[:, None, None],
        return_GSP=return_GSP,
        weight_G=weight_G,
        soft_targets=_soft_targets(scored, task, num_trained),
        token_rewards=_token_rewards(scored, task),
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


def _token_rewards(scored: Sequence[ScoredGroup], task: Task) -> StackedTokenRewards | None:
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
    return StackedTokenRewards(
        queries=TokenQueries(
            positions_P=torch.from_numpy(first.positions_P),
            token_ids_K=torch.from_numpy(first.token_ids_K),
        ),
        reward_GSPK=torch.from_numpy(np.stack(rewards)).float(),
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
