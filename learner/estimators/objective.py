"""All that a step of reward tuning descends: an estimator's loss, and soft targets beside it.

Axes: G groups, R trained rollouts, T tokens, P positions, K token ids.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import cast

from learner.estimators.batch import ReinforceBatch
from learner.estimators.config import CHOICES, EstimatorConfig
from learner.estimators.estimator import Estimator, Losses
from learner.estimators.loss import soft_target_loss
from learner.estimators.token_rewards import ExpectedTokenRewards
from rewardtune.policies.policy import TokenLogProbs
from rewardtune.tasks.task import Task, TokenRewardsTask


@dataclass(frozen=True, slots=True)
class Objective:
    estimator: Estimator
    reward_weight: float
    """Of the estimator's loss."""

    def loss(self, found: TokenLogProbs, batch: ReinforceBatch) -> Losses:
        """Sums over the groups of a micro-batch.

        Args:
            found: log-probs of ``batch.tokens_GRT`` and at ``batch.queries``, with gradient.
        """
        log_probs, targets = batch.log_probs(found), batch.soft_targets
        policy_gradient = self.estimator.loss(log_probs, batch)
        total = self.reward_weight * policy_gradient.total
        sums = {**policy_gradient.sums, "reinforce_loss": policy_gradient.total}
        if targets is not None:
            assert log_probs.soft_targets_GRPK is not None
            soft = soft_target_loss(
                log_probs.soft_targets_GRPK, targets.probability_GRPK, batch.weight_G
            )
            total = total + targets.weight * soft
            sums["soft_target_loss"] = soft
        drawn_GRT = log_probs.drawn_GRT.detach()
        gap_GRT = (drawn_GRT - batch.behaviour_log_prob_GRT).abs() * batch.live_GRT
        sums |= {"loss": total, "log_prob_gap": gap_GRT.mean(dim=(1, 2)).sum()}
        return Losses(total, sums)


def objective(
    config: EstimatorConfig, *, task: Task, temperature: float, weighs_importance: bool
) -> Objective:
    """What a config and a task ask for.

    Args:
        temperature: at which rollouts are drawn.
        weighs_importance: correct rollouts of older versions by a truncated weight.

    Raises:
        ValueError: the settings cannot use the task's rewards of tokens that were not drawn.
    """
    estimator: Estimator
    if isinstance(task, TokenRewardsTask) and task.has_token_rewards:
        config.check_token_rewards()
        estimator = ExpectedTokenRewards(config, weighs_importance, temperature)
    else:
        module, name = CHOICES[config.estimator].place
        made = getattr(importlib.import_module(module), name)
        estimator = cast(Estimator, made(config, weighs_importance=weighs_importance))
    return Objective(estimator, config.reward_weight)
