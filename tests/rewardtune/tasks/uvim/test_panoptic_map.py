"""Post-processing against the reference, and the shortcut against the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.panoptic_map import decode_panoptic, panoptic_maps
from rewardtune.tasks.uvim.patches import PixelHead, join_map
from rewardtune.tasks.uvim.stage_one import StageOne
from tests.rewardtune.tasks.uvim.reference import arrays, network


@pytest.mark.parametrize("min_fraction", ["0.0", "0.15"])
def test_maps_of_a_published_stage_one_are_the_reference_s(min_fraction: str) -> None:
    stored, net = arrays("stage1_panoptic"), network("stage1_panoptic")
    code, images = torch.from_numpy(stored["in/code"]), torch.from_numpy(stored["in/ctx"])
    state = net.decoder.states(net.codebook.lookup(code), net.decoder.context(images))
    found = decode_panoptic(net.decoder, state, min_fraction=float(min_fraction))
    np.testing.assert_array_equal(found.numpy(), stored[f"out/predict_minfrac_{min_fraction}"])


@pytest.mark.parametrize("min_fraction", ["0.0", "0.05"])
def test_maps_of_given_logits_are_the_reference_s(min_fraction: str) -> None:
    stored = arrays("panoptic_pq")
    found = panoptic_maps(
        torch.from_numpy(stored["in/semantics_logits"]),
        torch.from_numpy(stored["in/instances_logits"]),
        min_fraction=float(min_fraction),
    )
    # Patches of 7 x 9 pixels on a 3 x 3 grid.
    joined = found.reshape(4, 3, 3, 7, 9, 2).transpose(2, 3).reshape(4, 21, 27, 2)
    expected = stored[f"out/two_channel_minfrac_{min_fraction}"]
    np.testing.assert_array_equal(joined.numpy(), expected)


def random_network(seed: int, *, num_ids: int) -> tuple[StageOne, Tensor]:
    """Every weight random, also the heads', and states to decode."""
    torch.manual_seed(seed)
    net = StageOne(
        StageOneConfig(
            input_size=32,
            patch_size=8,
            width=24,
            num_heads=2,
            mlp_width=16,
            encoder_depth=1,
            decoder_depth=1,
            code_length=4,
            dict_size=8,
            codeword_width=8,
            outputs={"semantics": 7, "instances": num_ids},
        )
    )
    for head in net.decoder.heads.values():
        assert isinstance(head, PixelHead)
        torch.nn.init.normal_(head.kernel)
        torch.nn.init.normal_(head.bias)
    return net, torch.randn(3, 16, 24)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("min_fraction", [0.0, 0.1])
def test_the_shortcut_gives_the_map_of_all_logits(seed: int, min_fraction: float) -> None:
    net, state = random_network(seed, num_ids=(1, 2, 5, 9)[seed % 4])
    full = panoptic_maps(
        net.decoder.heads["semantics"](state),
        net.decoder.heads["instances"](state),
        min_fraction=min_fraction,
    )
    pictures = torch.stack([join_map(m, 8) for m in full.unbind(-1)], dim=-1)
    found = decode_panoptic(net.decoder, state, min_fraction=min_fraction)
    assert torch.equal(found, pictures)
