"""The losses, as sums over groups that the caller divides by the global number of groups.

Axes: G groups, R trained rollouts, T tokens, P positions or steps, K token ids.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rewardtune.policies.draw import is_stop

IMPORTANCE_LIMIT = 2.0
"""Largest weight of a stale rollout."""


def live_positions(tokens_GRT: Tensor, stop_tokens: tuple[int, ...]) -> Tensor:
    """1.0 up to and including the first stop token, 0.0 after it, where nothing was chosen."""
    stops_GRT = is_stop(tokens_GRT, stop_tokens).to(torch.int64)
    stops_before = stops_GRT.cumsum(dim=-1) - stops_GRT
    return (stops_before == 0).float()


def importance_weights(
    log_prob_GRT: Tensor, behaviour_log_prob_GRT: Tensor, live_GRT: Tensor, *, num_steps: int = 1
) -> Tensor:
    """Policy over behaviour probability [G, R, P], truncated, no gradient.

    Of sequences up to the end of each step: what comes after it has no part in its reward.
    """
    gap_GRT = (log_prob_GRT.detach() - behaviour_log_prob_GRT) * live_GRT
    gap_GRP: Tensor = gap_GRT.unflatten(-1, (num_steps, -1)).sum(dim=-1).cumsum(dim=-1)
    return gap_GRP.exp().clamp(max=IMPORTANCE_LIMIT)


def reinforce_loss(log_prob_GRT: Tensor, advantage_GRP: Tensor, live_GRT: Tensor) -> Tensor:
    """Sum over groups of the mean over rollouts and all T positions of -advantage * log p.

    A token has the advantage of its step, one of P equally long ones.

    The mean is over T whatever the sequence's length: only beside another loss term does it
    matter, and there it is what big_vision's published sketch does.
    """
    num_rollouts, length = log_prob_GRT.shape[1:]
    advantage_GRT = advantage_GRP.repeat_interleave(length // advantage_GRP.shape[-1], dim=-1)
    weighted = advantage_GRT * log_prob_GRT * live_GRT
    return -weighted.sum() / (num_rollouts * length)


def expected_rewards(
    log_prob_GRPK: Tensor, reward_GRPK: Tensor, is_drawn_GRPK: Tensor, reward_GRP: Tensor
) -> Tensor:
    """What a step earns in the mean over the K tokens with a reward [G, R, P], no gradient.

    Where a token was drawn that is none of them, what the step earned.

    Args:
        log_prob_GRPK: of these K alone: their probabilities sum to 1.
        reward_GRPK: what the step would have earned with each of them.
        is_drawn_GRPK: which of them was drawn; none where another was.
        reward_GRP: what the step earned.
    """
    expected_GRP = (log_prob_GRPK.detach().exp() * reward_GRPK).sum(dim=-1)
    return torch.where(is_drawn_GRPK.any(dim=-1), expected_GRP, reward_GRP)


def token_rewards_loss(
    log_prob_GRPK: Tensor,
    reward_GRPK: Tensor,
    is_drawn_GRPK: Tensor,
    advantage_GRP: Tensor,
    weight_GRP: Tensor,
    *,
    length: int,
) -> Tensor:
    """What makes ``reinforce_loss`` take the expectation over tokens with rewards r.

    With p(K) the probability that any of them is drawn, and q that of each if one is::

        log p(t) = log p(K) + log q(t)
        E_q[(r(t) - b) grad log q(t)] = grad sum_k q(k) r(k),  whatever b

    ``reinforce_loss`` descends -advantage * (log p(K) + log q(t)). This takes the log q(t) of the
    token t that was drawn away again and puts the sum in its place: the right-hand side of the
    second line, which has the same mean and no noise. Summed over groups, mean over rollouts and
    all ``length`` positions.

    Args:
        log_prob_GRPK: log q.
        reward_GRPK: r.
        is_drawn_GRPK: which of them is t; none where another token was drawn: nothing is changed.
        advantage_GRP: as given to ``reinforce_loss``, with its weight.
        weight_GRP: of stale rollouts; 0 where nothing is trained.

    Source: Rao-Blackwell; of whole steps "all-action" or expected policy gradients (Ciosek &
    Whiteson 2018, arXiv:1706.05374).
    """
    expected_GRP = (log_prob_GRPK.exp() * reward_GRPK).sum(dim=-1)
    drawn_GRP = (log_prob_GRPK * is_drawn_GRPK).sum(dim=-1)
    gain_GRP = weight_GRP * is_drawn_GRPK.any(dim=-1) * expected_GRP - advantage_GRP * drawn_GRP
    return -gain_GRP.sum() / (log_prob_GRPK.shape[1] * length)


def soft_target_loss(log_prob_GRPK: Tensor, probability_GRPK: Tensor, weight_G: Tensor) -> Tensor:
    """Sum over groups of the mean over rollouts and positions of the cross entropy."""
    num_rollouts, num_positions = log_prob_GRPK.shape[1:3]
    cross_entropy_G = -(probability_GRPK * log_prob_GRPK).sum(dim=(1, 2, 3))
    return (cross_entropy_G * weight_G).sum() / (num_rollouts * num_positions)


def maximum_likelihood_loss(log_prob_GRT: Tensor, live_GRT: Tensor) -> Tensor:
    """Sum over groups of the mean over live positions of -log p."""
    per_sequence = (log_prob_GRT * live_GRT).sum(dim=-1) / live_GRT.sum(dim=-1)
    return -per_sequence.mean(dim=1).sum()
