"""Prepared products against plain ones, on both sides of where packing begins.

Axes: as in ``rewardtune.layers.prepared``.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rewardtune.layers import prepared
from rewardtune.layers.prepared import PreparedLinear

SMALL, LARGE = (4, 24, 40), (600, 64, 48)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["plain", "packed"])
def test_prepared_products_equal_plain_ones(
    sizes: tuple[int, int, int], has_bias: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    num_rows, features_in, features_out = sizes
    kernel = torch.randn(features_in, features_out) * features_in**-0.5
    bias = torch.randn(features_out) if has_bias else None
    x = torch.randn(num_rows, features_in).to(dtype)
    residual = torch.randn(num_rows, features_out).to(dtype)
    linear = PreparedLinear(kernel, bias, dtype=dtype, num_rows=num_rows)
    expected = x.float() @ kernel.to(dtype).float()
    if bias is not None:
        expected = expected + bias.to(dtype).float()
    tolerance = 2e-6 if dtype == torch.float32 else 4e-2
    for found, wanted in (
        (linear.apply(x), expected),
        (linear.apply_gelu(x), F.gelu(expected, approximate="tanh")),
        (linear.apply_added(x, residual), expected + residual.float()),
    ):
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), wanted, rtol=0, atol=tolerance)


def test_other_numbers_of_rows_than_prepared_for_are_the_same_product() -> None:
    torch.manual_seed(0)
    kernel = torch.randn(64, 48)
    linear = PreparedLinear(kernel, None, dtype=torch.float32, num_rows=1000)
    for num_rows in (1, 3, 77):
        x = torch.randn(num_rows, 64)
        torch.testing.assert_close(linear.apply(x), x @ kernel, rtol=0, atol=2e-5)


def test_without_the_packed_operators_plain_products_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, x = torch.randn(64, 48), torch.randn(1000, 64)
    packed = PreparedLinear(kernel, None, dtype=torch.float32, num_rows=1000).apply_gelu(x)
    monkeypatch.setattr(prepared, "_packs", lambda kernel, num_rows: False)
    plain = PreparedLinear(kernel, None, dtype=torch.float32, num_rows=1000).apply_gelu(x)
    torch.testing.assert_close(packed, plain, rtol=0, atol=2e-5)
