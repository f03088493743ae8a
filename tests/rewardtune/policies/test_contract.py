"""What every kind of policy promises, whatever it computes.

Axes: G groups (images), S sequences of a group, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conv_gru import ConvGru, ConvGruConfig
from torch import Tensor, nn

from rewardtune.datasets.frame import Square
from rewardtune.policies.canary import canary_error, canary_tokens, measure_canary
from rewardtune.policies.draw import GREEDY, Decoding, uniforms
from rewardtune.policies.find import OURS, policy_class
from rewardtune.policies.hugging_face.policy import HuggingFacePolicy
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.kinds.parallel import ParallelPolicy
from rewardtune.policies.policy import Policy, TokenQueries
from rewardtune.policies.policy_file import load_policy, save_policy
from rewardtune.policies.weights import load_weights, pack_weights
from tests.rewardtune.policies.conftest import SIZES
from tests.rewardtune.policies.hugging_face_models import KINDS as MODELS
from tests.rewardtune.policies.hugging_face_models import save_model, tiny_model

LENGTH = 7
STOP = 3
POLICIES = ("encoder_decoder", "readout", "parallel", "conv_gru", *MODELS)
SAMPLING = Decoding()

Make = Callable[[str], Policy]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Each of ``POLICIES``, fresh at every call, with weights such that nothing is uniform."""

    @cache
    def build(name: str) -> Policy:
        if name in MODELS:
            folder = tmp_path_factory.mktemp(name)
            save_model(tiny_model(name), folder)
            return HuggingFacePolicy.load(folder, sequence_length=LENGTH)
        torch.manual_seed(0)
        if name == "conv_gru":
            return ConvGru(
                ConvGruConfig(vocab_size=17, sequence_length=LENGTH, input_size=32, width=32)
            )
        sizes = SIZES["vtt"].model_copy(update={"sequence_length": LENGTH})
        if name == "readout":
            sizes = sizes.model_copy(update={"readout_every": LENGTH})
        kind: Any = ParallelPolicy if name == "parallel" else EncoderDecoder
        policy: Policy = kind(sizes)
        for parameter_name, parameter in policy.named_parameters():
            if parameter_name.endswith(("bias", "head.project.kernel", "readout.drawn.kernel")):
                nn.init.normal_(parameter, std=0.3)
        return policy

    return lambda name: copy.deepcopy(build(name))


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest, make: Make) -> Policy:
    return make(request.param)


def pictures(count: int, *, seed: int = 1) -> Tensor:
    return torch.rand(count, 32, 32, 3, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def some_uniforms(num_groups: int, num_samples: int, length: int = LENGTH) -> Tensor:
    drawn = uniforms(
        seed=3,
        ordinals_N=torch.arange(num_groups).repeat_interleave(num_samples),
        rollouts_N=torch.arange(num_samples).repeat(num_groups),
        sequence_length=length,
    )
    return drawn.view(num_groups, num_samples, length)


def is_after_stop(tokens_GST: Tensor) -> Tensor:
    is_stop = (tokens_GST == STOP).long()
    return is_stop.cumsum(dim=-1) > is_stop


def test_every_kind_is_held_to_the_contract(make: Make) -> None:
    assert {make(name).kind for name in POLICIES} == {*OURS, "conv_gru:ConvGru"}
    for kind in (make(name).kind for name in POLICIES):
        assert policy_class(kind).kind == kind


def test_sizes_are_what_samples_have(policy: Policy) -> None:
    assert (policy.framing, policy.sequence_length) == (Square(side=32), LENGTH)
    samples = policy.sample(
        pictures(2), some_uniforms(2, 3), decoding=SAMPLING, probe_tokens=(4, 1)
    )
    assert samples.tokens_GST.shape == samples.log_probs_GST.shape == (2, 3, LENGTH)
    assert samples.tokens_GST.dtype == torch.int32
    assert samples.log_probs_GST.dtype == torch.float32
    assert samples.probe_log_probs_GSTQ.shape == (2, 3, LENGTH, 2)
    assert 0 <= samples.tokens_GST.min() <= samples.tokens_GST.max() < policy.vocab_size


@pytest.mark.parametrize(
    "decoding",
    [SAMPLING, GREEDY, Decoding(temperature=0.7), Decoding(top_p=0.6)],
    ids=["sampling", "greedy", "temperature", "top_p"],
)
def test_log_probs_of_samples_are_those_of_log_prob(policy: Policy, decoding: Decoding) -> None:
    images = pictures(3)
    samples = policy.sample(
        images, some_uniforms(3, 4), decoding=decoding, probe_tokens=(4,), stop_tokens=(STOP,)
    )
    queries = TokenQueries(torch.arange(LENGTH), torch.tensor([4]))
    forced = policy.log_prob(
        images, samples.tokens_GST.long(), queries=queries, temperature=decoding.temperature
    )
    is_after = is_after_stop(samples.tokens_GST)
    expected = forced.drawn_GST.detach().masked_fill(is_after, 0.0)
    # A temperature scales the rounding of the logits too.
    atol = 1e-5 / decoding.temperature
    torch.testing.assert_close(samples.log_probs_GST, expected, rtol=0, atol=atol)
    assert (samples.tokens_GST[is_after] == 0).all()
    assert forced.queried_GSPK is not None
    torch.testing.assert_close(
        samples.probe_log_probs_GSTQ[~is_after],
        forced.queried_GSPK.detach()[~is_after],
        rtol=0,
        atol=1e-5,
    )


def test_probabilities_of_the_next_token_sum_to_one(policy: Policy) -> None:
    tokens = torch.zeros(1, policy.vocab_size, LENGTH, dtype=torch.int64)
    tokens[0, :, 0] = torch.arange(policy.vocab_size)
    first = policy.log_prob(pictures(1), tokens).drawn_GST[0, :, 0].detach()
    assert first.exp().sum() == pytest.approx(1.0, abs=1e-5)


def test_draws_follow_the_distribution(policy: Policy) -> None:
    num_samples = 4000
    image = pictures(1)
    drawn = policy.sample(image, some_uniforms(1, num_samples, 1), decoding=SAMPLING).tokens_GST
    counts = torch.bincount(drawn.flatten().long(), minlength=policy.vocab_size)
    tokens = torch.arange(policy.vocab_size)[None, :, None]
    expected = policy.log_prob(image, tokens).drawn_GST.flatten().detach().exp() * num_samples
    is_common = expected > 5
    square = (counts - expected)[is_common] ** 2 / expected[is_common]
    degrees = int(is_common.sum())
    assert float(square.sum()) < degrees + 5 * (2 * degrees) ** 0.5


def test_greedy_tokens_are_the_likeliest(policy: Policy) -> None:
    images = pictures(2)
    tokens_GT = policy.sample(images, some_uniforms(2, 1), decoding=GREEDY).tokens_GST[:, 0]
    # At each position, the token that was taken against all others.
    for position in range(LENGTH):
        tokens_GVT = tokens_GT.long()[:, None].repeat(1, policy.vocab_size, 1)
        tokens_GVT[:, :, position] = torch.arange(policy.vocab_size)
        at = policy.log_prob(images, tokens_GVT).drawn_GST[:, :, position]
        assert at.argmax(dim=1).tolist() == tokens_GT[:, position].tolist()


def test_a_sequence_is_the_same_alone_and_in_company(policy: Policy) -> None:
    images, uniforms_GST = pictures(3), some_uniforms(3, 4)
    together = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    for group in range(3):
        for row in range(4):
            alone = policy.sample(
                images[group : group + 1],
                uniforms_GST[group : group + 1, row : row + 1],
                decoding=SAMPLING,
            )
            assert alone.tokens_GST[0, 0].tolist() == together.tokens_GST[group, row].tolist()
            torch.testing.assert_close(
                alone.log_probs_GST[0, 0], together.log_probs_GST[group, row], rtol=0, atol=1e-4
            )


def test_sequences_see_their_own_image(policy: Policy) -> None:
    images = pictures(2)
    tokens = torch.randint(policy.vocab_size, (2, 3, LENGTH))
    before = policy.log_prob(images, tokens).drawn_GST
    changed = policy.log_prob(torch.stack([images[0], -images[1]]), tokens).drawn_GST
    torch.testing.assert_close(before[0], changed[0], rtol=0, atol=1e-5)
    assert (before[1] - changed[1]).abs().min() > 0


def test_sampling_is_repeatable_and_leaves_no_trace(policy: Policy) -> None:
    images, uniforms_GST = pictures(2), some_uniforms(2, 2)
    state = torch.get_rng_state()
    before = {name: p.detach().clone() for name, p in policy.named_parameters()}
    samples = policy.sample(images, uniforms_GST, decoding=SAMPLING, probe_tokens=(1,))
    again = policy.sample(images, uniforms_GST, decoding=SAMPLING, probe_tokens=(1,))
    assert torch.equal(samples.tokens_GST, again.tokens_GST)
    assert torch.equal(samples.log_probs_GST, again.log_probs_GST)
    assert not samples.log_probs_GST.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name])


def test_every_parameter_takes_part(policy: Policy) -> None:
    tokens = torch.randint(policy.vocab_size, (2, 2, LENGTH))
    policy.log_prob(pictures(2), tokens).drawn_GST.sum().backward()
    for name, parameter in policy.named_parameters():
        assert parameter.grad is not None, name


def test_training_mode_drops_nothing_out(policy: Policy) -> None:
    images, tokens = pictures(1), torch.randint(policy.vocab_size, (1, 2, LENGTH))
    before = policy.log_prob(images, tokens).drawn_GST
    policy.train()
    assert torch.equal(policy.log_prob(images, tokens).drawn_GST, before)


def test_recomputing_activations_changes_no_gradient(policy: Policy) -> None:
    images, tokens = pictures(2), torch.randint(policy.vocab_size, (2, 2, LENGTH))
    gradients = []
    for recompute in (False, True):
        policy.zero_grad()
        policy.log_prob(images, tokens, recompute=recompute).drawn_GST.sum().backward()
        gradients.append({name: p.grad for name, p in policy.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)


def test_log_probs_are_float32_under_autocast(policy: Policy) -> None:
    images, tokens = pictures(2), torch.randint(policy.vocab_size, (2, 2, LENGTH))
    exact = policy.log_prob(images, tokens).drawn_GST.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        drawn = policy.log_prob(images, tokens).drawn_GST
        assert torch.is_autocast_enabled("cpu")
    assert drawn.dtype == torch.float32
    # Had the head computed in bfloat16, its logits would be multiples of 2^-7 or more.
    assert 0 < (drawn.detach() - exact).abs().mean() < 0.2


def test_a_file_brings_the_policy_back(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy(path, policy, vocabulary={"task": "some"}, provenance={})
    state = torch.get_rng_state()
    loaded = load_policy(path).policy
    assert torch.equal(torch.get_rng_state(), state)
    assert (type(loaded), loaded.config) == (type(policy), policy.config)
    images, tokens = pictures(2), torch.randint(policy.vocab_size, (2, 2, LENGTH))
    expected = policy.log_prob(images, tokens).drawn_GST
    assert torch.equal(loaded.log_prob(images, tokens).drawn_GST, expected)
    again = tmp_path / "again.safetensors"
    save_policy(again, loaded, vocabulary={"task": "some"}, provenance={})
    assert again.read_bytes() == path.read_bytes()


def test_weights_carry_a_policy_into_a_copy(policy: Policy) -> None:
    """As samplers get theirs: a copy of the policy, then weights by parameter name."""
    images, uniforms_GST = pictures(2), some_uniforms(2, 2)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    expected = policy.sample(images, uniforms_GST, decoding=SAMPLING)
    assert not torch.equal(
        other.sample(images, uniforms_GST, decoding=SAMPLING).log_probs_GST, expected.log_probs_GST
    )
    load_weights(other, pack_weights(policy, dtype=torch.float32))
    found = other.sample(images, uniforms_GST, decoding=SAMPLING)
    assert torch.equal(found.tokens_GST, expected.tokens_GST)
    assert torch.equal(found.log_probs_GST, expected.log_probs_GST)


def test_a_canary_tells_these_weights_from_others(policy: Policy) -> None:
    images, tokens = pictures(2), canary_tokens(policy, num_groups=2)
    canary = measure_canary(policy, range(2), images, tokens)
    assert canary_error(policy, canary, images) == 0.0
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.9)
    assert canary_error(policy, canary, images) > 1e-3
