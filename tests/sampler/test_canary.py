"""Damaged weights are noticed before anything is drawn with them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from rewardtune.policies.canary import canary_tokens, measure_canary
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.weights import is_float32_only, load_weights, pack_weights
from rewardtune.records import Published, WeightManifest
from rewardtune.records.weights import manifest_of
from rewardtune.transport.weights.weight_store import DamagedWeights
from sampler.canary import check_canary

ORDINALS = range(4)


def make_policy(dtype: torch.dtype) -> EncoderDecoder:
    torch.manual_seed(0)
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=16,
            patch_size=8,
            width=32,
            num_heads=2,
            mlp_width=32,
            encoder_depth=1,
            decoder_depth=1,
            vocab_size=40,
            sequence_length=6,
        )
    )
    torch.nn.init.normal_(policy.decoder.head.project.kernel, std=0.3)
    for name, parameter in policy.named_parameters():
        if not is_float32_only(name):
            parameter.data = parameter.data.to(dtype)
    return policy.requires_grad_(False)


def images() -> Tensor:
    return torch.rand(len(ORDINALS), 16, 16, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def learner(request: pytest.FixtureRequest) -> EncoderDecoder:
    return make_policy(request.param)


def published_by(learner: EncoderDecoder) -> WeightManifest:
    canary = measure_canary(
        learner, ORDINALS, images(), canary_tokens(learner, num_groups=len(ORDINALS))
    )
    dtype = learner.patch_embedding.kernel.dtype
    return manifest_of(Published(1, 2), pack_weights(learner, dtype=dtype), canary=canary)


def flip(parameter: Tensor, *, byte: int, bits: int) -> None:
    """Change one byte of a parameter's memory."""
    parameter.view(-1).view(torch.uint8).numpy()[byte] ^= bits


def test_the_same_weights_make_no_error(learner: EncoderDecoder) -> None:
    manifest = published_by(learner)
    sampler = make_policy(learner.patch_embedding.kernel.dtype)
    load_weights(sampler, pack_weights(learner, dtype=sampler.patch_embedding.kernel.dtype))
    assert check_canary(sampler, manifest, images()) == 0.0


@pytest.mark.parametrize(
    "name",
    [
        "patch_embedding.kernel",
        "encoder.norm.scale",
        "decoder.position_embedding",
        "decoder.head.project.bias",
    ],
)
def test_one_flipped_byte_is_noticed(learner: EncoderDecoder, name: str) -> None:
    manifest, sampler = published_by(learner), copy.deepcopy(learner)
    parameter = dict(sampler.named_parameters())[name]
    # The last byte of a number holds its sign and most of its exponent.
    flip(parameter, byte=parameter.element_size() - 1, bits=0x7F)
    with pytest.raises(DamagedWeights, match=r"weights 1/2 .* off by .* restart it"):
        check_canary(sampler, manifest, images())


def test_weights_of_another_version_are_noticed(learner: EncoderDecoder) -> None:
    manifest, sampler = published_by(learner), copy.deepcopy(learner)
    for parameter in sampler.parameters():
        parameter.mul_(1.1)
    with pytest.raises(DamagedWeights):
        check_canary(sampler, manifest, images())


def test_a_log_prob_that_is_no_number_is_damage(learner: EncoderDecoder) -> None:
    manifest, sampler = published_by(learner), copy.deepcopy(learner)
    sampler.decoder.head.project.bias[3] = float("nan")
    with pytest.raises(DamagedWeights, match="off by nan"):
        check_canary(sampler, manifest, images())


def test_a_log_prob_that_is_no_number_in_the_learner_either_is_no_damage(
    learner: EncoderDecoder,
) -> None:
    learner.decoder.head.project.bias[3] = float("nan")
    manifest, sampler = published_by(learner), copy.deepcopy(learner)
    assert check_canary(sampler, manifest, images()) == 0.0
    sampler.decoder.head.project.bias[3] = 0.0
    with pytest.raises(DamagedWeights, match="off by nan"):
        check_canary(sampler, manifest, images())


def test_without_a_canary_there_is_nothing_to_check(learner: EncoderDecoder) -> None:
    dtype = learner.patch_embedding.kernel.dtype
    manifest = manifest_of(Published(0, 0), pack_weights(learner, dtype=dtype))
    assert check_canary(learner, manifest, images()) == 0.0
