"""The fast heads against the definition of a panoptic map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardtune.tasks.uvim import bfloat16_heads
from rewardtune.tasks.uvim.bfloat16_heads import BFloat16Likeliest, BFloat16PanopticHeads, classes
from rewardtune.tasks.uvim.panoptic_map import decode_panoptic, panoptic_maps
from rewardtune.tasks.uvim.patches import PixelHead, join_map
from tests.rewardtune.tasks.uvim.test_panoptic_map import random_network


@pytest.fixture(params=[32, 24, 1], autouse=True)
def pixels_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that a patch of 64 pixels is made of, of which it is not, and the shortest."""
    monkeypatch.setattr(bfloat16_heads, "_PIXELS_AT_A_TIME", request.param)


def head(seed: int, *, num_channels: int, whole: bool) -> tuple[PixelHead, Tensor]:
    """A head and states; ``whole`` numbers so small that bfloat16 rounds nothing."""
    torch.manual_seed(seed)
    found = PixelHead(24, num_channels, 8).requires_grad_(False)
    state_TD = torch.randn(16, 24)
    found.kernel.normal_()
    found.bias.normal_()
    if whole:
        for tensor in (found.kernel, found.bias, state_TD):
            tensor.round_().clamp_(-2, 2)
    return found, state_TD


@pytest.mark.parametrize("num_channels", [1, 2, 5, 100])
def test_where_nothing_is_rounded_the_likeliest_is_the_first_of_the_largest(
    num_channels: int,
) -> None:
    found, state_TD = head(0, num_channels=num_channels, whole=True)
    logit_TCP = found.forward(state_TD[None])[0]
    likeliest = BFloat16Likeliest(found, num_patches=16)(state_TD)
    np.testing.assert_array_equal(likeliest, logit_TCP.argmax(dim=1).numpy())


def test_elsewhere_its_logit_is_within_rounding_of_the_largest() -> None:
    found, state_TD = head(1, num_channels=100, whole=False)
    logit_TCP = found.forward(state_TD[None])[0]
    likeliest_TP = torch.from_numpy(BFloat16Likeliest(found, num_patches=16)(state_TD)).long()
    chosen_TP = logit_TCP.gather(1, likeliest_TP[:, None])[:, 0]
    shortfall_TP = logit_TCP.amax(dim=1) - chosen_TP
    # A logit is a sum of 24 products, of two rounded numbers each, rounded: 2^-9 each time. Its
    # error is hence at most 3 * 2^-9 of the sum of the products' sizes, twice for two logits.
    size = (state_TD.abs() @ found.kernel.abs().flatten(1)).max()
    assert shortfall_TP.max() < 2 * 3 * 2**-9 * float(size)
    # Of a hundred random logits the two largest are seldom that close.
    assert (shortfall_TP > 0).float().mean() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_classes_are_those_of_the_summed_logits(seed: int) -> None:
    found, state_TD = head(seed, num_channels=7, whole=False)
    rng = np.random.default_rng(seed)
    instance_TP = rng.choice([0, 2, 3, 9], (16, 64)).astype(np.int32)
    logit_MK = found.forward(state_TD[None])[0].transpose(1, 2).flatten(0, 1)
    sums_IK = torch.zeros(10, 7).index_add_(0, torch.from_numpy(instance_TP).flatten(), logit_MK)
    expected = sums_IK.argmax(dim=1)
    assert torch.equal(classes(found, state_TD, instance_TP), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("min_fraction", [0.0, 0.1])
def test_where_nothing_is_rounded_maps_are_those_of_the_definition(
    seed: int, min_fraction: float
) -> None:
    net, state_NTD = random_network(seed, num_ids=(1, 2, 5, 9)[seed])
    instances = net.decoder.heads["instances"]
    assert isinstance(instances, PixelHead)
    with torch.no_grad():
        for tensor in (instances.kernel, instances.bias, state_NTD):
            tensor.round_().clamp_(-2, 2)
        full = panoptic_maps(
            net.decoder.heads["semantics"](state_NTD),
            instances(state_NTD),
            min_fraction=min_fraction,
        )
        expected = torch.stack([join_map(m, 8) for m in full.unbind(-1)], dim=-1)
        found = BFloat16PanopticHeads(net.decoder)(state_NTD, min_fraction=min_fraction)
    assert found.dtype == torch.int32
    assert torch.equal(found, expected)


def test_few_pixels_of_random_logits_get_another_id_than_in_float32() -> None:
    net, state_NTD = random_network(3, num_ids=9)
    with torch.no_grad():
        exact = decode_panoptic(net.decoder, state_NTD)
        found = BFloat16PanopticHeads(net.decoder)(state_NTD)
    # Ids only: one class that is all but a draw takes a ninth of the picture with it.
    assert (found != exact)[..., 1].float().mean() < 0.02
