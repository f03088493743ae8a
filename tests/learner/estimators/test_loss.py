"""Losses against the slow formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.estimators.loss import (
    importance_weights,
    live_positions,
    maximum_likelihood_loss,
    reinforce_loss,
    soft_target_loss,
)

FIXTURE = np.load(Path(__file__).parents[2] / "fixtures" / "detection_reward.npz")


def test_positions_after_the_stop_token_are_not_live() -> None:
    tokens = torch.tensor([[[5, 2, 0, 0], [2, 2, 2, 0], [1, 1, 1, 1]]])
    assert live_positions(tokens, (2,)).tolist() == [[[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]]
    assert live_positions(tokens, (2, 5)).tolist() == [[[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]]
    assert live_positions(tokens, ()).min() == 1


def test_importance_weight_is_the_ratio_of_whole_sequences_truncated() -> None:
    log_prob = torch.tensor([[[-1.0, -2.0, -9.0], [-1.0, -1.0, 0.0]]])
    behaviour = torch.tensor([[[-1.5, -1.9, 0.0], [-3.0, -1.0, 0.0]]])
    live = torch.tensor([[[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]])
    weight = importance_weights(log_prob, behaviour, live)
    assert weight.shape == (1, 2, 1)
    assert weight[0, 0].item() == pytest.approx(math.exp(0.5 - 0.1))
    assert weight[0, 1].item() == 2.0


def test_importance_weight_of_a_step_is_that_of_the_sequence_up_to_its_end() -> None:
    gap = torch.tensor([[[0.1, -0.3, 0.2, 0.1, -5.0, 9.0]]])
    weight = importance_weights(gap, torch.zeros(1, 1, 6), torch.ones(1, 1, 6), num_steps=3)
    expected = [math.exp(-0.2), math.exp(0.1), 2.0]
    assert weight[0, 0].tolist() == pytest.approx(expected)


def test_reinforce_loss_is_the_mean_over_rollouts_and_all_positions() -> None:
    log_prob = torch.randn(3, 2, 5)
    advantage = torch.randn(3, 2)
    slow = sum(
        -advantage[g, r] * log_prob[g, r, t] / (2 * 5)
        for g in range(3)
        for r in range(2)
        for t in range(5)
    )
    got = reinforce_loss(log_prob, advantage[..., None], torch.ones(3, 2, 5))
    torch.testing.assert_close(got, torch.as_tensor(slow))


def test_reinforce_loss_gives_a_token_the_advantage_of_its_step() -> None:
    log_prob = torch.randn(3, 2, 6)
    advantage = torch.randn(3, 2, 3)
    slow = sum(
        -advantage[g, r, t // 2] * log_prob[g, r, t] / (2 * 6)
        for g in range(3)
        for r in range(2)
        for t in range(6)
    )
    got = reinforce_loss(log_prob, advantage, torch.ones(3, 2, 6))
    torch.testing.assert_close(got, torch.as_tensor(slow))


def test_maximum_likelihood_is_the_mean_over_live_positions() -> None:
    log_prob = torch.tensor([[[-1.0, -3.0, -100.0]], [[-2.0, -2.0, -2.0]]])
    live = torch.tensor([[[1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0]]])
    assert maximum_likelihood_loss(log_prob, live).item() == pytest.approx(2.0 + 2.0)


def test_both_terms_of_the_published_detection_loss() -> None:
    """big_vision's reward and confidence terms, and their gradient, on its own logits."""
    factor_u = torch.tensor(FIXTURE["loss/logits_factor_u"], requires_grad=True)
    logits = factor_u @ torch.tensor(FIXTURE["loss/logits_factor_w"])
    tokens = torch.tensor(FIXTURE["in/pred_tokens"][:, 0]).long()
    log_probs = logits.log_softmax(-1)
    drawn = log_probs.gather(-1, tokens[..., None])[..., 0][:, None]
    reward = torch.tensor(FIXTURE["out/reward_reference_aggregate"])
    advantage = (reward[:, 0] - torch.tensor(FIXTURE["loss/baseline"]))[:, None]
    num_images = len(tokens)

    reward_term = reinforce_loss(drawn, advantage[..., None], torch.ones_like(drawn)) / num_images
    confidence = tokens[:, 5::6]
    iou = torch.tensor(FIXTURE["out/match_iou"])[:, 0]
    is_box = (confidence > 0).float()
    target = torch.stack([1 - is_box, is_box * (1 - iou), is_box * iou], dim=-1)[:, None]
    queried = log_probs[:, 5::6, :3][:, None]
    conf_term = soft_target_loss(queried, target, torch.ones(num_images)) / num_images
    total = reward_term + 0.3 * conf_term

    assert reward_term.item() == pytest.approx(float(FIXTURE["loss/reward_term"]), rel=1e-5)
    assert conf_term.item() == pytest.approx(float(FIXTURE["loss/conf_term"]), rel=1e-5)
    assert total.item() == pytest.approx(float(FIXTURE["loss/total"]), rel=1e-5)
    (gradient,) = torch.autograd.grad(total, factor_u)
    torch.testing.assert_close(
        gradient, torch.tensor(FIXTURE["loss/grad_wrt_u"]), rtol=1e-4, atol=1e-6
    )
