"""The CPU's attention to the past against torch's, and against its formula.

Axes: as in ``rewardtune.policies.decoding.past``.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardtune.policies.decoding.past import CpuTokenPast, DeviceTokenPast, TokenPast, token_past


def attended(past: TokenPast, fused_TNX: Tensor) -> Tensor:
    """Everything that ``past`` returns for the tokens one after the other: [T, N, D]."""
    return torch.stack([past.attend(fused, t).clone() for t, fused in enumerate(fused_TNX)])


def by_formula(fused_TNX: Tensor, num_heads: int) -> Tensor:
    query, key, value = (
        part.unflatten(-1, (num_heads, -1)) for part in fused_TNX.double().chunk(3, dim=-1)
    )
    mixed = []
    for t in range(len(fused_TNX)):
        score_UNH = (query[t] * key[: t + 1]).sum(dim=-1)
        mixed.append((score_UNH.softmax(dim=0)[..., None] * value[: t + 1]).sum(dim=0))
    return torch.stack(mixed).flatten(2)


@pytest.mark.parametrize("kind", [CpuTokenPast, DeviceTokenPast])
@pytest.mark.parametrize(
    ("num_sequences", "num_heads", "head_width", "length"),
    # One lane, a block with lanes to spare, whole blocks, several with a rest; widths off fours.
    [(1, 2, 8, 5), (7, 4, 24, 9), (64, 2, 16, 4), (150, 3, 5, 6), (130, 1, 7, 3), (3, 12, 64, 21)],
)
def test_attention_to_the_past_equals_its_formula(
    kind: type[CpuTokenPast | DeviceTokenPast],
    num_sequences: int,
    num_heads: int,
    head_width: int,
    length: int,
) -> None:
    torch.manual_seed(0)
    width = num_heads * head_width
    fused_TNX = torch.randn(length, num_sequences, 3 * width)
    fused_TNX[..., :width] *= 2 / math.sqrt(head_width)
    past = kind(
        num_sequences=num_sequences, length=length, num_heads=num_heads, like_D=torch.empty(width)
    )
    expected = by_formula(fused_TNX, num_heads).float()
    torch.testing.assert_close(attended(past, fused_TNX), expected, rtol=0, atol=2e-6)


def test_scores_far_apart_leave_the_largest() -> None:
    fused_TNX = torch.zeros(3, 2, 3 * 4)
    fused_TNX[:, :, 0] = 1.0  # query
    fused_TNX[:, 0, 4] = torch.tensor([-1e4, 300.0, -300.0])  # key
    fused_TNX[:, 1, 4] = torch.tensor([-1e4, -1e4, -1e4])
    fused_TNX[:, :, 8] = torch.tensor([[1.0], [2.0], [3.0]])  # value
    past = CpuTokenPast(num_sequences=2, length=3, num_heads=1, like_D=torch.empty(4))
    assert attended(past, fused_TNX)[:, :, 0].tolist() == [[1.0, 1.0], [2.0, 1.5], [2.0, 2.0]]


def test_scores_that_are_not_finite_give_nan_and_no_error() -> None:
    fused_TNX = torch.zeros(2, 130, 3 * 4)
    fused_TNX[1, 127, :8] = 1e30  # query and keys: their product overflows
    past = CpuTokenPast(num_sequences=130, length=2, num_heads=1, like_D=torch.empty(4))
    assert past.attend(fused_TNX[0], 0).isfinite().all()
    assert past.attend(fused_TNX[1], 1).isnan().all()


def test_bfloat16_loses_only_what_rounding_its_inputs_and_result_loses() -> None:
    torch.manual_seed(0)
    fused_TNX = torch.randn(8, 5, 3 * 32).to(torch.bfloat16)
    past = token_past(
        num_sequences=5, length=8, num_heads=4, like_D=torch.empty(32, dtype=torch.bfloat16)
    )
    found = attended(past, fused_TNX)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, by_formula(fused_TNX, 4).to(torch.bfloat16))


def test_a_sequence_does_not_depend_on_its_company_or_the_number_of_threads() -> None:
    torch.manual_seed(0)
    fused_TNX = torch.randn(5, 200, 3 * 16)
    num_threads = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            past = CpuTokenPast(num_sequences=200, length=5, num_heads=2, like_D=torch.empty(16))
            found.append(attended(past, fused_TNX))
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    alone = CpuTokenPast(num_sequences=1, length=5, num_heads=2, like_D=torch.empty(16))
    one = attended(alone, fused_TNX[:, 123:124])
    torch.testing.assert_close(one[:, 0], found[0][:, 123], rtol=0, atol=1e-6)
