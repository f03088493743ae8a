"""Networks for values that somebody else has."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from rewardtune.layers import Encoder
from rewardtune.layers.initialize import sizes_only


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
