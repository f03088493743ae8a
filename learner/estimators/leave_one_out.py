"""Train on all rollouts of a group, each with the others as its baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from learner.estimators.advantage import advantages
from learner.estimators.batch import BatchLogProbs, ReinforceBatch
from learner.estimators.config import EstimatorConfig
from learner.estimators.estimator import Losses
from learner.estimators.reinforce import reinforce


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Every rollout is trained on.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!".
    """

    config: EstimatorConfig
    weighs_importance: bool = False

    def advantages(self, return_GSP: Tensor) -> Tensor:
        return advantages(return_GSP, return_GSP, has_baseline=self.config.baseline)

    def loss(self, log_probs: BatchLogProbs, batch: ReinforceBatch) -> Losses:
        return reinforce(
            self.advantages(batch.return_GSP),
            log_probs.drawn_GRT,
            batch,
            weighs_importance=self.weighs_importance,
        )
