"""REINFORCE with given advantages, for estimators that differ in how they come by them.

Axes: G groups, R trained rollouts, T tokens, P steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from learner.estimators.batch import ReinforceBatch
from learner.estimators.estimator import Losses
from learner.estimators.loss import importance_weights, reinforce_loss


@dataclass(frozen=True, slots=True)
class Weighted:
    """Advantages as they enter a loss."""

    advantage_GRP: Tensor
    """Times ``weight_GRP``."""
    weight_GRP: Tensor
    """0 in an invalid group; the importance weight where stale rollouts are corrected for."""
    sums: Mapping[str, Tensor]
    """Of the importance weights, for the record."""


def weighted(
    advantage_GRP: Tensor, log_prob_GRT: Tensor, batch: ReinforceBatch, *, weighs_importance: bool
) -> Weighted:
    """Leave invalid groups out, and correct stale rollouts where that is asked for."""
    weight_GRP = batch.weight_G[:, None, None].expand_as(advantage_GRP)
    advantage_GRP = weight_GRP * advantage_GRP
    if not weighs_importance:
        return Weighted(advantage_GRP, weight_GRP, sums={})
    ratio_GRP = importance_weights(
        log_prob_GRT,
        batch.behaviour_log_prob_GRT,
        batch.live_GRT,
        num_steps=advantage_GRP.shape[-1],
    )
    mean_G, square_G = ratio_GRP.mean(dim=(1, 2)), (ratio_GRP**2).mean(dim=(1, 2))
    sums = {
        "importance_weight_mean": (mean_G * batch.weight_G).sum(),
        "importance_weight_square": (square_G * batch.weight_G).sum(),
    }
    return Weighted(advantage_GRP * ratio_GRP, weight_GRP * ratio_GRP, sums)


def reinforce(
    advantage_GRP: Tensor, log_prob_GRT: Tensor, batch: ReinforceBatch, *, weighs_importance: bool
) -> Losses:
    """The loss of these advantages over what was drawn.

    Args:
        advantage_GRP: as ``Estimator.advantages`` has it of ``batch.return_GSP``.
        log_prob_GRT: of the drawn tokens, with gradient.
    """
    # Float64 up to here: rewards of a group can differ in digits that float32 drops.
    advantage_GRP = advantage_GRP.float().to(log_prob_GRT.device)
    found = weighted(advantage_GRP, log_prob_GRT, batch, weighs_importance=weighs_importance)
    return Losses(reinforce_loss(log_prob_GRT, found.advantage_GRP, batch.live_GRT), found.sums)
