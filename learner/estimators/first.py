"""Train on one rollout of a group; the others are its baseline."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from learner.estimators.advantage import advantages
from learner.estimators.batch import BatchLogProbs, ReinforceBatch
from learner.estimators.config import EstimatorConfig
from learner.estimators.estimator import Losses
from learner.estimators.reinforce import reinforce


@dataclass(frozen=True, slots=True)
class First:
    """The first rollout is trained on.

    Source: Pinto et al. 2023, arXiv:2302.08242, algorithm 2.
    """

    config: EstimatorConfig
    weighs_importance: bool = False

    def advantages(self, return_GSP: Tensor) -> Tensor:
        return advantages(return_GSP[:, :1], return_GSP, has_baseline=self.config.baseline)

    def loss(self, log_probs: BatchLogProbs, batch: ReinforceBatch) -> Losses:
        return reinforce(
            self.advantages(batch.return_GSP),
            log_probs.drawn_GRT,
            batch,
            weighs_importance=self.weighs_importance,
        )
