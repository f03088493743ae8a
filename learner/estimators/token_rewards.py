"""Leave one out, with the expectation over tokens whose rewards the task tells.

Axes: G groups, S rollouts (all are trained on), T tokens, P steps of a sequence with one position
each that has token rewards, K token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from learner.estimators.advantage import advantages
from learner.estimators.batch import BatchLogProbs, ReinforceBatch
from learner.estimators.config import EstimatorConfig
from learner.estimators.estimator import Losses
from learner.estimators.loss import expected_rewards, reinforce_loss, token_rewards_loss
from learner.estimators.reinforce import weighted


@dataclass(frozen=True, slots=True)
class ExpectedTokenRewards:
    """The gradient of ``LeaveOneOut`` without the noise of which of those tokens was drawn.

    A step's return is what it earns in the mean over them, which only the policy that is trained
    can tell: advantages are computed with its log-probs, in float32.
    """

    config: EstimatorConfig
    weighs_importance: bool = False
    temperature: float = 1.0
    """At which rollouts are drawn."""

    def advantages(self, return_GSP: Tensor) -> Tensor:
        return advantages(return_GSP, return_GSP, has_baseline=self.config.baseline)

    def loss(self, log_probs: BatchLogProbs, batch: ReinforceBatch) -> Losses:
        drawn_GST, rewards = log_probs.drawn_GRT, batch.token_rewards
        # A batch without them has no valid group, and no loss either.
        assert rewards is not None and log_probs.token_rewards_GRPK is not None
        log_prob_GSPK = (log_probs.token_rewards_GRPK / self.temperature).log_softmax(dim=-1)
        at_GSP = batch.tokens_GRT[..., rewards.queries.positions_P]
        is_drawn_GSPK = at_GSP[..., None] == rewards.queries.token_ids_K.to(at_GSP.device)
        return_GSP = batch.return_GSP.float().to(drawn_GST.device)
        expected_GSP = expected_rewards(
            log_prob_GSPK, rewards.reward_GSPK, is_drawn_GSPK, return_GSP
        )
        found = weighted(
            self.advantages(expected_GSP),
            drawn_GST,
            batch,
            weighs_importance=self.weighs_importance,
        )
        policy_gradient = reinforce_loss(drawn_GST, found.advantage_GRP, batch.live_GRT)
        policy_gradient = policy_gradient + token_rewards_loss(
            log_prob_GSPK,
            rewards.reward_GSPK,
            is_drawn_GSPK,
            found.advantage_GRP,
            found.weight_GRP,
            length=drawn_GST.shape[-1],
        )
        return Losses(policy_gradient, found.sums)
