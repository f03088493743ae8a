"""The contract of an estimator, and what a loss comes back as.

Axes: G groups, S rollouts, R rollouts that are trained on, P steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from learner.estimators.batch import BatchLogProbs, ReinforceBatch


@dataclass(frozen=True, slots=True)
class Losses:
    """Of one micro-batch, summed over its groups: the learner divides by how many there are."""

    total: Tensor
    """What is descended: a scalar with gradient."""
    sums: Mapping[str, Tensor]
    """For the run's record, by name."""


class Estimator(Protocol):
    """An estimate of the expected reward's gradient, as the loss whose gradient it is.

    Made of ``EstimatorConfig`` and ``weighs_importance``, whether to correct stale rollouts. How
    many rollouts it trains on stands in ``config.py``: runs must know it before torch is loaded.
    """

    def advantages(self, return_GSP: Tensor) -> Tensor:
        """How much better than expected each step of the trained rollouts was [G, R, P].

        Args:
            return_GSP: what is to be raised, of whole groups; P = 1 for whole sequences.

        Raises:
            ValueError: a baseline is wanted of groups with a single rollout.
        """
        ...

    def loss(self, log_probs: BatchLogProbs, batch: ReinforceBatch) -> Losses:
        """The policy gradient's loss over a micro-batch of a batch that has a valid group.

        Args:
            log_probs: of ``batch``, by the policy that is trained.
        """
        ...
