"""What fresh policies begin with where the published ones begin with noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardtune.layers import sincos2d
from rewardtune.layers.initialize import level_sinusoids
from rewardtune.layers.position import patches_alike
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.kinds.parallel import ParallelPolicy
from rewardtune.policies.networks.vit import VitPolicy
from tests.rewardtune.policies.conftest import SIZES as VTT

SIZES = VTT["vtt"].model_dump()
LEVELS = range(3, 14)


def fresh(kind: type[VitPolicy], *levels: range) -> VitPolicy:
    torch.manual_seed(0)
    policy = kind.fresh(SIZES)
    policy.start_levels(levels)
    return policy


def changed(name: str, plain: Any, started: Any) -> torch.Tensor:
    return torch.ne(plain.tensors()[name], started.tensors()[name])


@pytest.mark.parametrize("kind", [EncoderDecoder, ParallelPolicy])
def test_only_rows_of_levels_differ(kind: type[VitPolicy]) -> None:
    plain, started = fresh(kind), fresh(kind, LEVELS)
    differ = {name for name in plain.tensors() if changed(name, plain, started).any()}
    embeds = {"decoder.token_embedding"} if kind is EncoderDecoder else set()
    assert differ == {"decoder.head.project.kernel"} | embeds
    tokens = changed("decoder.head.project.kernel", plain, started).any(dim=0)
    assert tokens.nonzero().flatten().tolist() == list(LEVELS)


@pytest.mark.parametrize("kind", [EncoderDecoder, ParallelPolicy])
def test_learned_positions_begin_alike_and_nothing_else_does(kind: type[VitPolicy]) -> None:
    torch.manual_seed(0)
    published = kind(VTT["vtt"])
    differ = {name for name in published.tensors() if changed(name, published, fresh(kind)).any()}
    decoders = {"decoder.position_embedding"} if kind is EncoderDecoder else set()
    assert differ == {"position_embedding"} | decoders
    assert torch.equal(fresh(kind).position_embedding, patches_alike(4, SIZES["width"]))


def test_fixed_positions_stay_as_published() -> None:
    sizes = {**SIZES, "position_embedding": "sincos2d"}
    assert torch.equal(
        EncoderDecoder.fresh(sizes).position_embedding, sincos2d(4, 4, SIZES["width"])
    )


def test_what_a_level_is_read_as_is_what_it_is_written_as() -> None:
    tensors = fresh(EncoderDecoder, LEVELS).tensors()
    rows_LD = tensors["decoder.token_embedding"][LEVELS.start : LEVELS.stop]
    assert torch.equal(rows_LD, level_sinusoids(len(LEVELS), SIZES["width"]))
    logits_LV = rows_LD @ tensors["decoder.head.project.kernel"]
    assert logits_LV.argmax(dim=1).tolist() == list(LEVELS)


def test_logits_of_levels_begin_small_at_any_width() -> None:
    for width in (64, 768):
        torch.manual_seed(0)
        policy = EncoderDecoder.fresh({**SIZES, "width": width})
        policy.start_levels([LEVELS])
        state_ND = torch.randn(4000, width)
        logits = policy.decoder.head.forward(state_ND)[:, LEVELS.start : LEVELS.stop]
        assert logits.std().item() == pytest.approx(0.35, rel=0.1)
