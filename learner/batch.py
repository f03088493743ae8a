"""One learner step's scored groups as tensors.

Axes: G groups, S rollouts, R trained rollouts, T tokens, P positions, K token ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learner.advantage import advantages
from learner.config import Estimator
from policies.policy import TokenQueries
from records import ScoredGroup, TokenTargets
from tasks.task import Task


@dataclass(frozen=True, slots=True)
class SoftTargets:
    queries: TokenQueries
    probability_GRPK: Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class ReinforceBatch:
    """Invalid groups keep their place, so that shapes are fixed, with advantage and weight 0."""

    tokens_GRT: Tensor
    behaviour_log_prob_GRT: Tensor
    advantage_GR: Tensor
    is_valid_G: Tensor
    """1.0 or 0.0."""
    targets: SoftTargets | None

    @property
    def num_valid(self) -> int:
        return int(self.is_valid_G.sum())


def reinforce_batch(
    scored: Sequence[ScoredGroup], *, task: Task, estimator: Estimator, has_baseline: bool
) -> ReinforceBatch:
    """Stack scored groups, in the order given.

    Raises:
        ValueError: a valid group lacks the soft targets that others have.
    """
    is_valid_G = torch.tensor([float(s.score.is_valid) for s in scored])
    reward_GS = torch.from_numpy(
        np.stack([s.score.reward_S if s.score.is_valid else _nothing(s) for s in scored])
    )
    num_trained = 1 if estimator == "first" else reward_GS.shape[1]
    # Float64 up to here: rewards of a group can differ in digits that float32 drops.
    advantage_GR = advantages(reward_GS, estimator=estimator, has_baseline=has_baseline).float()
    tokens_GRT = torch.from_numpy(np.stack([s.group.tokens_ST[:num_trained] for s in scored]))
    behaviour = np.stack([s.group.log_probs_ST[:num_trained] for s in scored])
    return ReinforceBatch(
        tokens_GRT=tokens_GRT.long(),
        behaviour_log_prob_GRT=torch.from_numpy(behaviour),
        advantage_GR=advantage_GR * is_valid_G[:, None],
        is_valid_G=is_valid_G,
        targets=_soft_targets(scored, task, num_trained),
    )


def _nothing(scored: ScoredGroup) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.zeros(len(scored.group.tokens_ST))


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
