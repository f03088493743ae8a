"""How much better a rollout, or a step of it, was than expected.

Axes: G groups, S rollouts, R rollouts that are trained on, P steps of a sequence.
"""

from __future__ import annotations

from torch import Tensor


def discounted_returns(reward_GSP: Tensor, *, discount: float) -> Tensor:
    """What each step [G, S, P] answers for: its own reward, and later ones with discount."""
    returns_GSP = reward_GSP.clone()
    for step in range(reward_GSP.shape[2] - 2, -1, -1):
        returns_GSP[..., step] += discount * returns_GSP[..., step + 1]
    return returns_GSP


def advantages(trained_GRP: Tensor, return_GSP: Tensor, *, has_baseline: bool) -> Tensor:
    """Advantage [G, R, P] of the rollouts that are trained on.

    The baseline of a rollout is the mean of the group's other rollouts at the same step: it does
    not depend on the rollout itself, so the gradient keeps its expectation.

    Args:
        trained_GRP: those of ``return_GSP`` that are trained on.
        return_GSP: what is to be raised, of whole groups; rewards of whole sequences have P = 1.
        has_baseline: False makes the advantage the reward itself.

    Raises:
        ValueError: a baseline is wanted of groups with a single rollout.

    Source: Pinto et al. 2023, arXiv:2302.08242, algorithm 2 (R = 1); Kool et al. 2019 (leave one
    out, R = S).
    """
    num_samples = return_GSP.shape[1]
    if has_baseline and num_samples < 2:
        raise ValueError(f"a baseline needs at least 2 rollouts per group, got {num_samples}")
    if not has_baseline:
        return trained_GRP
    others_GRP = return_GSP.sum(dim=1, keepdim=True) - trained_GRP
    return trained_GRP - others_GRP / (num_samples - 1)
