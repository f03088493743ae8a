"""Attention against its definition, head by head and position by position."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from rewardtune.layers import CrossAttention, SelfAttention
from rewardtune.layers.attention import HeadProjection


def randomise(module: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)


def project(projection: HeadProjection, x_D: Tensor, head: int) -> Tensor:
    projected = x_D @ projection.kernel[:, head]
    return projected if projection.bias is None else projected + projection.bias[head]


def attend_by_hand(
    module: SelfAttention | CrossAttention, x_TD: Tensor, context_PD: Tensor, *, is_causal: bool
) -> Tensor:
    rows = []
    for t, x_D in enumerate(x_TD):
        seen_PD = context_PD[: t + 1] if is_causal else context_PD
        out = torch.zeros_like(x_D) if module.out.bias is None else module.out.bias
        for head in range(module.num_heads):
            query = project(module.query, x_D, head)
            scores = [query @ project(module.key, y, head) / math.sqrt(len(query)) for y in seen_PD]
            weights = torch.stack(scores).softmax(dim=0)
            values = torch.stack([project(module.value, y, head) for y in seen_PD])
            out = out + (weights @ values) @ module.out.kernel[head]
        rows.append(out)
    return torch.stack(rows)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
def test_self_attention_equals_its_definition(has_bias: bool, is_causal: bool) -> None:
    module = SelfAttention(12, 3, has_bias=has_bias, is_causal=is_causal)
    randomise(module)
    x_NTD = torch.randn(2, 5, 12)
    expected = torch.stack([attend_by_hand(module, x, x, is_causal=is_causal) for x in x_NTD])
    torch.testing.assert_close(module(x_NTD), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("group_size", [1, 3])
def test_cross_attention_sees_the_context_of_its_own_group(group_size: int) -> None:
    module = CrossAttention(12, 3)
    randomise(module)
    x_NTD, context_GPD = torch.randn(2 * group_size, 5, 12), torch.randn(2, 7, 12)
    expected = torch.stack(
        [
            attend_by_hand(module, x, context_GPD[index // group_size], is_causal=False)
            for index, x in enumerate(x_NTD)
        ]
    )
    torch.testing.assert_close(module(x_NTD, context_GPD), expected, rtol=0, atol=1e-5)


def test_parameters_have_the_published_shapes_and_biases() -> None:
    shapes = {
        name: tuple(parameter.shape)
        for name, parameter in SelfAttention(
            12, 3, has_bias=True, is_causal=False
        ).named_parameters()
    }
    assert shapes == {
        "query.kernel": (12, 3, 4),
        "query.bias": (3, 4),
        "key.kernel": (12, 3, 4),
        "key.bias": (3, 4),
        "value.kernel": (12, 3, 4),
        "value.bias": (3, 4),
        "out.kernel": (3, 4, 12),
        "out.bias": (12,),
    }
    decoder = CrossAttention(12, 3).named_parameters()
    assert {name: tuple(parameter.shape) for name, parameter in decoder} == {
        name: shape for name, shape in shapes.items() if name.endswith("kernel")
    }
