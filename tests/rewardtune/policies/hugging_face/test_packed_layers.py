from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rewardtune.policies.hugging_face.packed_layers import packed_layers


def network(kind: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(kind(1024, 1024), nn.GELU(), kind(1024, 1024))


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@torch.no_grad()
def test_packed_layers_compute_the_same(kind: type[nn.Module]) -> None:
    layers, x = network(kind), torch.randn(4, 1, 1024)
    expected, other = layers(x), layers(x[:3])
    with packed_layers(layers, num_rows=4):
        for _ in range(2):
            torch.testing.assert_close(layers(x), expected, rtol=0, atol=1e-4)
        # Another number of rows takes the layer's own way.
        torch.testing.assert_close(layers(x[:3]), other, rtol=0, atol=1e-4)


@torch.no_grad()
def test_weights_that_changed_in_between_are_packed_anew() -> None:
    layers, x = network(nn.Linear), torch.randn(4, 1024)
    with packed_layers(layers, num_rows=4):
        before = layers(x)
    for parameter in layers.parameters():
        parameter.mul_(2.0)
    with packed_layers(layers, num_rows=4):
        after = layers(x)
    torch.testing.assert_close(after, layers(x), rtol=0, atol=1e-3)
    assert not torch.allclose(before, after)


def test_nothing_is_left_behind_even_by_an_error() -> None:
    layers = network(nn.Linear)
    with pytest.raises(RuntimeError), packed_layers(layers, num_rows=4):
        layers(torch.randn(4, 7))  # of another width
    assert not any("forward" in vars(layer) for layer in layers.modules())
