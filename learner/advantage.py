"""How much better a rollout was than expected.

Axes: G groups, S rollouts, R rollouts that are trained on.
"""

from __future__ import annotations

from torch import Tensor

from learner.config import Estimator


def advantages(reward_GS: Tensor, *, estimator: Estimator, has_baseline: bool) -> Tensor:
    """Advantage [G, R] of the rollouts that are trained on.

    The baseline of a rollout is the mean reward of the group's other rollouts: it does not
    depend on the rollout itself, so the gradient keeps its expectation.

    Args:
        reward_GS: rewards of whole groups.
        estimator: "first" trains on the first rollout (algorithm 2 of the paper, R = 1),
            "leave_one_out" on all (R = S).
        has_baseline: False makes the advantage the reward itself.

    Raises:
        ValueError: a baseline is wanted of groups with a single rollout.

    Source: Pinto et al. 2023, arXiv:2302.08242, algorithm 2; Kool et al. 2019 (leave one out).
    """
    num_samples = reward_GS.shape[1]
    if has_baseline and num_samples < 2:
        raise ValueError(f"a baseline needs at least 2 rollouts per group, got {num_samples}")
    trained_GR = reward_GS[:, :1] if estimator == "first" else reward_GS
    if not has_baseline:
        return trained_GR
    others_GR = reward_GS.sum(dim=1, keepdim=True) - trained_GR
    return trained_GR - others_GR / (num_samples - 1)
