"""Networks for values that somebody else has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from rewardtune.layers import Encoder
from rewardtune.layers.initialize import level_sinusoids, sizes_only


def encoder() -> nn.Module:
    return Encoder(depth=1, width=8, num_heads=2, mlp_width=16)


def test_a_network_of_sizes_has_the_shapes_of_one_with_values_and_draws_nothing() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with sizes_only():
        sized = encoder()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(tensor.is_meta for tensor in sized.state_dict().values())
    full = {name: tensor.shape for name, tensor in encoder().state_dict().items()}
    assert {name: tensor.shape for name, tensor in sized.state_dict().items()} == full


def test_after_it_values_are_drawn_again() -> None:
    with sizes_only():
        pass
    torch.manual_seed(0)
    one = torch.empty(3).normal_()
    torch.manual_seed(0)
    assert torch.equal(one, torch.empty(3).normal_()) and not torch.equal(one, torch.zeros(3))


def test_building_for_values_does_not_load_the_compiler() -> None:
    program = (
        "import sys\n"
        "from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder\n"
        "EncoderDecoder.build(dict(input_size=8, patch_size=4, width=8, num_heads=2, mlp_width=8,\n"
        "    encoder_depth=1, decoder_depth=1, vocab_size=4, sequence_length=2))\n"
        "print('torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_levels_are_sines_and_cosines_of_half_a_cycle_to_24() -> None:
    rows_LD = level_sinusoids(49, 96)
    for level in (0, 17, 48):
        for c in (0, 20, 47):
            cycles = 0.5 * (24 / 0.5) ** (c / 47)
            angle = torch.tensor(2 * torch.pi * cycles * level / 48)
            assert rows_LD[level, c] == pytest.approx(angle.sin().item(), abs=1e-4)
            assert rows_LD[level, 48 + c] == pytest.approx(angle.cos().item(), abs=1e-4)


def test_levels_are_the_more_alike_the_nearer_and_a_shift_is_the_same_everywhere() -> None:
    likeness_LL = level_sinusoids(49, 96) @ level_sinusoids(49, 96).t()
    assert torch.equal(likeness_LL.argmax(dim=1), torch.arange(49))
    near = likeness_LL.diagonal(), likeness_LL.diagonal(1), likeness_LL.diagonal(2)
    assert near[0].min() > near[1].max() > near[2].max()
    assert near[1].max() - near[1].min() < 1e-3  # whatever level it is a neighbour of


def test_of_an_odd_width_the_last_cosine_is_cut() -> None:
    assert torch.equal(level_sinusoids(5, 7), level_sinusoids(5, 8)[:, :7])
