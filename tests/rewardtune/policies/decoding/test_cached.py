"""Drawing with caches against big_vision, against teacher forcing, and against a plain loop.

Axes: as in ``rewardtune.policies.decoding.cached``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from rewardtune.policies.draw import GREEDY, Decoding, draw_tokens, uniforms
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.policy import TokenQueries
from rewardtune.policies.weights import is_float32_only

if TYPE_CHECKING:
    from tests.rewardtune.policies.conftest import Reference

    Load = Callable[[str], Reference]
    Build = Callable[..., EncoderDecoder]

SAMPLING = Decoding()


def some_uniforms(num_groups: int, num_samples: int, length: int, *, seed: int = 3) -> Tensor:
    drawn = uniforms(
        seed=seed,
        ordinals_N=torch.arange(num_groups).repeat_interleave(num_samples),
        rollouts_N=torch.arange(num_samples).repeat(num_groups),
        sequence_length=length,
    )
    return drawn.view(num_groups, num_samples, length)


def test_greedy_decoding_equals_big_vision(reference: Load) -> None:
    vtt = reference("vtt")
    samples = vtt.policy.sample(vtt.tensor("in/image"), torch.zeros(2, 1, 12), decoding=GREEDY)
    assert samples.tokens_GST.dtype == torch.int32
    assert samples.tokens_GST[:, 0].tolist() == vtt.tensor("out/greedy_tokens").tolist()
    found = samples.log_probs_GST[:, 0]
    torch.testing.assert_close(found, vtt.tensor("out/greedy_logprobs"), rtol=0, atol=1e-5)
    scores = vtt.tensor("out/greedy_scores")
    torch.testing.assert_close(found.sum(dim=-1), scores, rtol=0, atol=3e-5)


def test_greedy_decoding_with_a_stop_token_equals_big_vision_up_to_the_stop(
    reference: Load,
) -> None:
    vtt = reference("vtt_eos")
    stop = int(vtt.tensor("cfg/eos_token"))
    samples = vtt.policy.sample(
        vtt.tensor("in/image"), torch.zeros(3, 1, 8), decoding=GREEDY, stop_tokens=(stop,)
    )
    expected_GT = vtt.tensor("out/greedy_tokens")
    assert samples.tokens_GST[:, 0].tolist() == expected_GT.tolist()
    # The reference goes on to record log p(0) of stopped sequences; ours is 0 there.
    is_stop = expected_GT == stop
    is_after = is_stop.cumsum(dim=1) - is_stop.long() > 0
    assert is_after.any()
    assert (samples.log_probs_GST[:, 0][is_after] == 0).all()
    torch.testing.assert_close(
        samples.log_probs_GST[:, 0],
        vtt.tensor("out/greedy_logprobs").masked_fill(is_after, 0.0),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.parametrize("num_samples", [1, 2, 8])
@pytest.mark.parametrize(
    "decoding",
    [SAMPLING, GREEDY, Decoding(temperature=0.7), Decoding(top_k=3), Decoding(top_p=0.6)],
    ids=["sampling", "greedy", "temperature", "top_k", "top_p"],
)
def test_log_probs_equal_those_of_teacher_forcing(
    random_policy: Build, num_samples: int, decoding: Decoding
) -> None:
    """Of the tokens at the decoding's temperature, of probes at 1; always unrestricted."""
    policy = random_policy(seed=num_samples)
    images = torch.randn(3, 32, 32, 3)
    samples = policy.sample(
        images, some_uniforms(3, num_samples, 12), decoding=decoding, probe_tokens=(2, 0, 2)
    )
    queries = TokenQueries(torch.arange(12), torch.tensor([2, 0, 2]))
    forced = policy.log_prob(
        images, samples.tokens_GST.long(), queries=queries, temperature=decoding.temperature
    )
    torch.testing.assert_close(samples.log_probs_GST, forced.drawn_GST.detach(), rtol=0, atol=1e-5)
    assert forced.queried_GSPK is not None
    torch.testing.assert_close(
        samples.probe_log_probs_GSTQ, forced.queried_GSPK.detach(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "sizes",
    [{"decoder_depth": 1, "encoder_depth": 4}, {"num_heads": 1}, {"readout_every": 3}],
)
@pytest.mark.parametrize("position_embedding", ["learned", "sincos2d"])
def test_log_probs_equal_those_of_teacher_forcing_at_other_sizes(
    random_policy: Build, sizes: dict[str, int], position_embedding: str
) -> None:
    policy = random_policy(position_embedding=position_embedding, vocab_size=301, **sizes)
    images = torch.randn(2, 32, 32, 3)
    samples = policy.sample(images, some_uniforms(2, 3, 12), decoding=SAMPLING)
    forced = policy.log_prob(images, samples.tokens_GST.long()).drawn_GST
    torch.testing.assert_close(samples.log_probs_GST, forced.detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize(
    "decoding", [SAMPLING, Decoding(temperature=1.5, top_k=6)], ids=["plain", "restricted"]
)
def test_tokens_equal_those_of_a_loop_without_caches(
    random_policy: Build, decoding: Decoding, stops: bool
) -> None:
    policy = random_policy()
    images, uniforms_GST = torch.randn(2, 32, 32, 3), some_uniforms(2, 4, 12)
    free = policy.sample(images, uniforms_GST, decoding=decoding).tokens_GST
    # Two of them, since a sequence may end in either.
    stop_tokens = (int(free[0, 0, 4]), int(free[0, 1, 7])) if stops else ()
    context = policy.encode(images)
    tokens_NT = torch.zeros(8, 12, dtype=torch.int64)
    for position in range(12):
        logits_NTV = policy.logits(context, tokens_NT)
        token_N = draw_tokens(
            logits_NTV[:, position], uniforms_GST.flatten(0, 1)[:, position], decoding
        )
        for stop_token in stop_tokens:
            token_N[(tokens_NT[:, :position] == stop_token).any(dim=1)] = 0
        tokens_NT[:, position] = token_N
    found = policy.sample(
        images, uniforms_GST, decoding=decoding, stop_tokens=stop_tokens
    ).tokens_GST
    assert found.flatten(0, 1).tolist() == tokens_NT.tolist()
    assert torch.equal(found, free) != stops


def test_nothing_is_drawn_after_the_stop_token(random_policy: Build) -> None:
    policy = random_policy()
    images, uniforms_GST = torch.randn(4, 32, 32, 3), some_uniforms(4, 8, 12)
    free = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    stop = int(free.tokens_GST[0, 0, 5])
    stopped = policy.sample(images, uniforms_GST, decoding=SAMPLING, stop_tokens=(stop,))
    is_stop = free.tokens_GST == stop
    is_after = is_stop.cumsum(dim=-1) - is_stop.long() > 0
    assert 0 < is_after.sum() < is_after.numel()
    # Until the stop token and with it, both are the same draw.
    torch.testing.assert_close(stopped.tokens_GST, free.tokens_GST.masked_fill(is_after, 0))
    torch.testing.assert_close(
        stopped.log_probs_GST, free.log_probs_GST.masked_fill(is_after, 0.0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_samples_follow_the_distribution_of_the_policy(
    random_policy: Build, temperature: float
) -> None:
    policy = random_policy(vocab_size=4, sequence_length=2)
    images = torch.randn(1, 32, 32, 3)
    num_samples = 20_000
    decoding = Decoding(temperature=temperature)
    samples = policy.sample(images, some_uniforms(1, num_samples, 2), decoding=decoding)
    tokens = samples.tokens_GST[0].long()
    counts = torch.bincount(tokens[:, 0] * 4 + tokens[:, 1], minlength=16)
    all_sequences = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    found = policy.log_prob(images, all_sequences[None], temperature=temperature).drawn_GST
    log_prob = found[0].sum(dim=-1).detach()
    expected = log_prob.exp() * num_samples
    assert math.isclose(float(expected.sum()), num_samples, rel_tol=1e-5)
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 15 + 5 * math.sqrt(2 * 15)


def test_a_sample_is_the_same_alone_and_in_company(random_policy: Build) -> None:
    """Logits move in their last digits with the batch; a draw that close to the edge is rare."""
    policy = random_policy()
    images, uniforms_GST = torch.randn(5, 32, 32, 3), some_uniforms(5, 8, 12)
    together = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    for group in range(5):
        for row in range(0, 8, 3):
            one = uniforms_GST[group : group + 1, row : row + 1]
            alone = policy.sample(images[group : group + 1], one, decoding=SAMPLING)
            torch.testing.assert_close(alone.tokens_GST[0, 0], together.tokens_GST[group, row])


def test_each_image_is_encoded_once_for_all_its_samples(
    random_policy: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = random_policy()
    encoded = []
    forward = policy.encoder.forward

    def counting(x_NTD: Tensor, *, recompute: bool = False) -> Tensor:
        encoded.append(len(x_NTD))
        return forward(x_NTD, recompute=recompute)

    monkeypatch.setattr(policy.encoder, "forward", counting)
    policy.sample(torch.randn(3, 32, 32, 3), some_uniforms(3, 8, 12), decoding=SAMPLING)
    assert encoded == [3]


def test_sampling_records_no_gradient_and_leaves_the_policy_alone(random_policy: Build) -> None:
    policy = random_policy()
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    images, uniforms_GST = torch.randn(2, 32, 32, 3), some_uniforms(2, 2, 12)
    state = torch.get_rng_state()
    samples = policy.sample(images, uniforms_GST, decoding=SAMPLING, probe_tokens=(1,))
    again = policy.sample(images, uniforms_GST, decoding=SAMPLING, probe_tokens=(1,))
    assert torch.equal(samples.tokens_GST, again.tokens_GST)
    assert torch.equal(samples.log_probs_GST, again.log_probs_GST)
    assert torch.equal(samples.probe_log_probs_GSTQ, again.probe_log_probs_GSTQ)
    assert not samples.log_probs_GST.requires_grad
    assert not samples.probe_log_probs_GSTQ.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad


def test_no_probes_are_an_empty_axis(random_policy: Build) -> None:
    policy = random_policy()
    images, uniforms_GST = torch.randn(1, 32, 32, 3), some_uniforms(1, 2, 12)
    samples = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    assert samples.probe_log_probs_GSTQ.shape == (1, 2, 12, 0)
    assert samples.log_probs_GST.dtype == torch.float32


def test_shorter_draws_are_the_beginning_of_longer_ones(random_policy: Build) -> None:
    policy = random_policy()
    images, uniforms_GST = torch.randn(2, 32, 32, 3), some_uniforms(2, 3, 12)
    whole = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    start = policy.sample(images, uniforms_GST[..., :5], decoding=SAMPLING)
    assert start.tokens_GST.tolist() == whole.tokens_GST[..., :5].tolist()


def test_a_sampler_in_bfloat16_draws_nearly_the_policy(random_policy: Build) -> None:
    policy = random_policy()
    images, uniforms_GST = torch.randn(3, 32, 32, 3), some_uniforms(3, 4, 12)
    half = copy.deepcopy(policy)
    for name, parameter in half.named_parameters():
        if not is_float32_only(name):
            parameter.data = parameter.data.to(torch.bfloat16)
    samples = half.sample(images, uniforms_GST, decoding=SAMPLING, probe_tokens=(1,))
    assert samples.log_probs_GST.dtype == samples.probe_log_probs_GSTQ.dtype == torch.float32
    forced = policy.log_prob(images, samples.tokens_GST.long()).drawn_GST.detach()
    gap = (samples.log_probs_GST - forced).abs()
    assert 1e-4 < gap.mean() < 0.1
