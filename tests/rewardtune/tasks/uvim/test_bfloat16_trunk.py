"""The fast blocks against the plain ones, and attention against its definition."""

from __future__ import annotations

import pytest
import torch

from rewardtune.layers import Encoder
from rewardtune.tasks.uvim import bfloat16_attention
from rewardtune.tasks.uvim.bfloat16_attention import attention
from rewardtune.tasks.uvim.bfloat16_trunk import BFloat16Trunk, _sequences_at_a_time


# All heads at once; two heads, then one; rows of a head, the last fewer; one row at a time.
@pytest.mark.parametrize("at_a_time", [2**19, 2 * 10 * 10, 35, 1])
def test_attention_equals_its_definition(monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr(bfloat16_attention, "_SCORES_AT_A_TIME", at_a_time)
    torch.manual_seed(0)
    fused = torch.randn(3, 10, 3 * 3 * 8).bfloat16()
    found = attention(fused, num_heads=3)
    query, key, value = fused.double().reshape(3, 10, 3, 3, 8).permute(2, 0, 3, 1, 4)
    shares = (query @ key.transpose(-1, -2)).softmax(dim=-1)
    expected = (shares @ value).transpose(1, 2).reshape(3, 10, 24)
    assert found.dtype == torch.bfloat16
    # Scores of up to 10 are rounded to 2^-9 of themselves: shares, and sums of values of up to 3
    # by them, are off by at most a few hundredths.
    assert (found.double() - expected).abs().max() < 0.06
    assert (found.double() - expected).abs().mean() < 0.006


def trunk(*, depth: int) -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(depth=depth, width=48, num_heads=3, mlp_width=96).requires_grad_(False)
    for name, weight in encoder.named_parameters():
        if "bias" in name or "scale" in name:
            weight.add_(0.1 * torch.randn(weight.shape))
    return encoder


@pytest.mark.parametrize("depth", [1, 4])
def test_the_fast_trunk_is_as_close_to_float32_as_the_plain_one_in_bfloat16(depth: int) -> None:
    encoder = trunk(depth=depth)
    x_NTD = torch.randn(2, 20, 48)
    exact = encoder.forward(x_NTD)
    fast = BFloat16Trunk(encoder, batch=2, num_patches=20)(x_NTD)
    plain = trunk(depth=depth).bfloat16().forward(x_NTD.bfloat16()).float()
    assert fast.dtype == torch.float32
    error = (fast - exact).square().mean().sqrt()
    assert 0 < error < 1.2 * (plain - exact).square().mean().sqrt()
    # States have unit variance.
    assert error < 0.02


@pytest.mark.parametrize(
    ("batch", "num_patches", "expected"),
    [(8, 1024, 1), (8, 4096, 1), (8, 256, 4), (6, 256, 3), (7, 256, 1), (1, 36, 1), (8, 36, 8)],
)
def test_a_batch_falls_into_equal_parts(batch: int, num_patches: int, expected: int) -> None:
    assert _sequences_at_a_time(batch, num_patches) == expected


def test_the_weights_of_the_plain_trunk_stay_as_they_are() -> None:
    encoder = trunk(depth=1)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    x_NTD = torch.randn(1, 5, 48)
    given = x_NTD.clone()
    BFloat16Trunk(encoder, batch=1, num_patches=5)(x_NTD)
    assert torch.equal(x_NTD, given)
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, before[name])
