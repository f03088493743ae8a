"""Log-probs and their gradient against the library's functions one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.networks.log_probs import by_torch
from rewardtune.policies import log_probs as module
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.policy import TokenLogProbs, TokenQueries

QUERIES = TokenQueries(torch.tensor([1, 4, 6, 4]), torch.tensor([2, 0, 10, 2]))
"""A position and a token are asked for twice."""


def with_gradient(
    function: Callable[..., TokenLogProbs],
    logits_NTV: Tensor,
    tokens_GST: Tensor,
    queries: TokenQueries | None,
    temperature: float,
) -> tuple[TokenLogProbs, Tensor | None]:
    """The gradient of a sum in which every log-prob has a weight of its own."""
    leaf = logits_NTV.clone().requires_grad_()
    found = function(leaf, tokens_GST, queries=queries, temperature=temperature)
    total = leaf.new_zeros(())
    for log_probs in (found.drawn_GST, found.queried_GSPK):
        if log_probs is not None:
            weight = torch.arange(log_probs.numel(), dtype=leaf.dtype) - 20
            total = total + (log_probs.flatten() * weight).sum()
    total.backward()
    return found, leaf.grad


@pytest.mark.parametrize("queries", [None, QUERIES], ids=["drawn", "asked"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("at_a_time", [1, 7 * 11 * 4, 1 << 18])
def test_log_probs_and_their_gradient(
    queries: TokenQueries | None,
    temperature: float,
    at_a_time: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In parts of one sequence, of several with a rest, and all at once."""
    monkeypatch.setattr(module, "_CACHED_LOGITS", at_a_time)
    generator = torch.Generator().manual_seed(0)
    logits_NTV = 30 * torch.randn(6, 7, 11, generator=generator, dtype=torch.float64)
    tokens_GST = torch.randint(11, (2, 3, 7), generator=generator)
    found, gradient = with_gradient(log_probs_of, logits_NTV, tokens_GST, queries, temperature)
    expected, by_library = with_gradient(by_torch, logits_NTV, tokens_GST, queries, temperature)
    torch.testing.assert_close(found.drawn_GST, expected.drawn_GST)
    torch.testing.assert_close(found.queried_GSPK, expected.queried_GSPK)
    torch.testing.assert_close(gradient, by_library)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    logits_NTV = torch.randn(2, 7, 11, requires_grad=True)
    tokens_GST = torch.zeros(1, 2, 7, dtype=torch.int64)
    found = log_probs_of(logits_NTV, tokens_GST, queries=QUERIES, temperature=0.7)
    assert found.queried_GSPK is not None
    found.queried_GSPK.sum().backward()
    assert logits_NTV.grad is not None
    is_asked_T = torch.zeros(7, dtype=torch.bool)
    is_asked_T[QUERIES.positions_P] = True
    assert torch.equal(logits_NTV.grad.abs().sum(dim=(0, 2)) > 0, is_asked_T)


def test_small_differences_of_large_logits_keep_their_digits() -> None:
    logits_NTV = torch.full((1, 1, 1000), 200.0)
    logits_NTV[..., 3] += 1 / 64
    found = log_probs_of(logits_NTV, torch.tensor([[[3]]]), queries=None, temperature=1.0)
    expected = logits_NTV.double().log_softmax(dim=-1)[0, 0, 3]
    assert abs(found.drawn_GST.item() - expected.item()) < 1e-6
