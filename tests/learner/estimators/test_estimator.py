"""The mean of the sampled gradient is the gradient of the expected reward.

On a policy small enough that every sequence can be listed: V^T sequences, their probabilities
and rewards give the exact gradient by autograd.
"""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch import Tensor

from learner.estimators.advantage import discounted_returns
from learner.estimators.config import EstimatorConfig
from learner.estimators.estimator import Estimator
from learner.estimators.first import First
from learner.estimators.leave_one_out import LeaveOneOut
from learner.estimators.loss import (
    expected_rewards,
    live_positions,
    reinforce_loss,
    token_rewards_loss,
)
from rewardtune.policies.draw import Decoding, uniforms
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.policy import TokenQueries

VOCAB, LENGTH = 3, 3
LEAVE_ONE_OUT = LeaveOneOut(EstimatorConfig(estimator="leave_one_out"))
CONFIG = EncoderDecoderConfig(
    input_size=4,
    patch_size=2,
    width=8,
    num_heads=2,
    mlp_width=8,
    encoder_depth=1,
    decoder_depth=1,
    vocab_size=VOCAB,
    sequence_length=LENGTH,
)


def make_policy() -> EncoderDecoder:
    torch.manual_seed(3)
    policy = EncoderDecoder(CONFIG)
    torch.nn.init.normal_(policy.decoder.head.project.kernel, std=0.5)
    return policy


def make_image() -> Tensor:
    return torch.rand(1, 4, 4, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def reward_of(tokens: Tensor) -> Tensor:
    """Any reward that no baseline can guess."""
    weights = torch.tensor([1.0, -2.0, 0.7])
    return (tokens.float() * weights).sum(-1) + 2.0 * (tokens[..., 0] == tokens[..., 2]) + 3.0


def step_rewards_of(tokens: Tensor) -> Tensor:
    """The same reward by token: what it adds, given those before it."""
    weights = torch.tensor([1.0, -2.0, 0.7])
    step_rewards = tokens.float() * weights
    step_rewards[..., 0] += 3.0
    step_rewards[..., 2] += 2.0 * (tokens[..., 0] == tokens[..., 2])
    return step_rewards


def gradient(policy: EncoderDecoder) -> Tensor:
    flat = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    policy.zero_grad()
    return flat


def exact_gradient(policy: EncoderDecoder, image: Tensor, *, temperature: float) -> Tensor:
    """Of -E[reward] / T: the loss is a mean over positions. E is over what is drawn."""
    every = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    found = policy.log_prob(image, every[None], temperature=temperature).drawn_GST
    log_prob = found[0].sum(-1)
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    (-(log_prob.exp() * reward_of(every)).sum() / LENGTH).backward()
    return gradient(policy)


def drawn(
    policy: EncoderDecoder, images: Tensor, *, num_samples: int, temperature: float, seed: int
) -> Tensor:
    """Rollouts [G, S, T] as a sampler draws them."""
    numbers = uniforms(
        seed=seed,
        ordinals_N=torch.arange(len(images)).repeat_interleave(num_samples),
        rollouts_N=torch.arange(num_samples).repeat(len(images)),
        sequence_length=LENGTH,
    ).unflatten(0, (len(images), num_samples))
    decoding = Decoding(temperature=temperature)
    return policy.sample(images, numbers, decoding=decoding).tokens_GST.long()


def sampled_gradient(
    policy: EncoderDecoder,
    image: Tensor,
    *,
    num_groups: int,
    num_samples: int,
    estimator: Estimator,
    temperature: float,
    discount: float | None = None,
    seed: int,
) -> Tensor:
    images = image.expand(num_groups, -1, -1, -1)
    tokens = drawn(policy, images, num_samples=num_samples, temperature=temperature, seed=seed)
    returns = (
        reward_of(tokens)[..., None]
        if discount is None
        else discounted_returns(step_rewards_of(tokens), discount=discount)
    )
    advantage = estimator.advantages(returns)
    trained = tokens[:, : advantage.shape[1]]
    log_prob = policy.log_prob(images, trained, temperature=temperature).drawn_GST
    live = live_positions(trained, ())
    (reinforce_loss(log_prob, advantage, live) / num_groups).backward()
    return gradient(policy)


@pytest.mark.parametrize("has_baseline", [True, False])
@pytest.mark.parametrize("kind", [First, LeaveOneOut])
def test_mean_sampled_gradient_converges_to_the_exact_one(
    kind: type[First] | type[LeaveOneOut], has_baseline: bool
) -> None:
    exact = exact_gradient(make_policy(), make_image(), temperature=1.0)
    estimator = kind(EstimatorConfig(baseline=has_baseline))
    draws = draws_of(temperature=1.0, discount=None, estimator=estimator)
    assert_converges(draws, exact)


@pytest.mark.slow
def test_at_another_temperature_it_is_the_reward_at_that_temperature_that_rises() -> None:
    exact = exact_gradient(make_policy(), make_image(), temperature=0.5)
    assert_converges(draws_of(temperature=0.5, discount=None), exact)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_reward_to_go_has_the_same_gradient_in_the_mean(temperature: float) -> None:
    exact = exact_gradient(make_policy(), make_image(), temperature=temperature)
    assert_converges(draws_of(temperature=temperature, discount=1.0), exact)


@pytest.mark.slow
def test_at_discount_0_the_gradient_is_that_of_what_each_token_earns_given_those_before() -> None:
    policy = make_policy()
    image = make_image()
    every = torch.tensor(list(itertools.product(range(VOCAB), repeat=LENGTH)))
    log_prob = policy.log_prob(image, every[None]).drawn_GST[0]
    probability = log_prob.detach().sum(-1).exp()
    of_sequence = (log_prob * step_rewards_of(every)).sum(-1)
    (-(probability * of_sequence).sum() / LENGTH).backward()
    exact = gradient(policy)
    assert_converges(draws_of(temperature=1.0, discount=0.0), exact)


def draws_of(
    *, temperature: float, discount: float | None, estimator: First | LeaveOneOut = LEAVE_ONE_OUT
) -> Tensor:
    """Gradients by seed; the same for every test that asks for the same."""
    return _draws_of(temperature, discount, estimator)


@functools.cache
def _draws_of(temperature: float, discount: float | None, estimator: First | LeaveOneOut) -> Tensor:
    policy, image = make_policy(), make_image()
    return torch.stack(
        [
            sampled_gradient(
                policy,
                image,
                num_groups=256,
                num_samples=4,
                estimator=estimator,
                temperature=temperature,
                discount=discount,
                seed=seed,
            )
            for seed in range(32)
        ]
    )


def token_rewards_gradient(
    policy: EncoderDecoder, image: Tensor, *, tokens_K: Tensor, temperature: float, seed: int
) -> Tensor:
    """With the expectation over these tokens at the last position."""
    num_groups = 256
    images = image.expand(num_groups, -1, -1, -1)
    tokens = drawn(policy, images, num_samples=4, temperature=temperature, seed=seed)
    found = policy.log_prob(
        images,
        tokens,
        queries=TokenQueries(torch.tensor([LENGTH - 1]), tokens_K),
        temperature=temperature,
    )
    assert found.queried_GSPK is not None
    log_prob = (found.queried_GSPK / temperature).log_softmax(-1)
    rewards = torch.stack(
        [
            reward_of(torch.cat([tokens[..., :-1], k.expand_as(tokens[..., :1])], -1))
            for k in tokens_K
        ],
        dim=-1,
    )[:, :, None]
    is_drawn = tokens[..., -1:, None] == tokens_K
    expected = expected_rewards(log_prob, rewards, is_drawn, reward_of(tokens)[..., None])
    advantage = LEAVE_ONE_OUT.advantages(expected)
    plain = reinforce_loss(found.drawn_GST, advantage, live_positions(tokens, ()))
    change = token_rewards_loss(
        log_prob, rewards, is_drawn, advantage, torch.ones_like(advantage), length=LENGTH
    )
    ((plain + change) / num_groups).backward()
    return gradient(policy)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [[0, 2], [0, 1, 2]], ids=["some listed", "all listed"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_expectation_over_listed_tokens_has_the_same_gradient_and_less_noise(
    tokens: list[int], temperature: float
) -> None:
    policy = make_policy()
    image = make_image()
    exact = exact_gradient(policy, image, temperature=temperature)
    draws = torch.stack(
        [
            token_rewards_gradient(
                policy, image, tokens_K=torch.tensor(tokens), temperature=temperature, seed=seed
            )
            for seed in range(32)
        ]
    )
    assert_converges(draws, exact)
    sampled = draws_of(temperature=temperature, discount=None)
    share = 0.8 if len(tokens) == VOCAB else 1.0
    assert draws.var(dim=0).sum() < share * sampled.var(dim=0).sum()


def assert_converges(draws: Tensor, exact: Tensor) -> None:
    mean = draws.mean(dim=0)
    error = draws.std(dim=0) / len(draws) ** 0.5
    # Some entries, such as biases of keys, have no gradient but rounding.
    moves = error > 1e-6
    # Normal scores of several hundred correlated entries: the largest stays below 5.
    assert ((mean - exact)[moves] / error[moves]).abs().max() < 5
    assert torch.nn.functional.cosine_similarity(mean, exact, dim=0) > 0.98
    assert (mean - exact).norm() < 0.25 * exact.norm()


def test_a_baseline_lowers_the_variance() -> None:
    policy = make_policy()
    image = torch.zeros(1, 4, 4, 3)

    def variance(*, has_baseline: bool) -> float:
        draws = [
            sampled_gradient(
                policy,
                image,
                num_groups=64,
                num_samples=4,
                estimator=LeaveOneOut(EstimatorConfig(baseline=has_baseline)),
                temperature=1.0,
                seed=seed,
            )
            for seed in range(16)
        ]
        return float(torch.stack(draws).var(dim=0).sum())

    assert variance(has_baseline=True) < 0.5 * variance(has_baseline=False)
