"""From logits to what ``Policy.log_prob`` returns.

Axes: G groups, S sequences of a group, N = G*S, T tokens, P positions, K token ids, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rewardtune.policies.draw import tempered
from rewardtune.policies.policy import TokenLogProbs, TokenQueries

_CACHED_LOGITS = 1 << 17
"""So many for each thread stay in its cache from the first step of the arithmetic to the last."""


def log_probs_of(
    logits_NTV: Tensor, tokens_GST: Tensor, *, queries: TokenQueries | None, temperature: float
) -> TokenLogProbs:
    """Log-probs of sequences, and of whatever else is asked for, from all their logits."""
    tokens_NT = tokens_GST.flatten(0, 1).long()
    drawn_NT, queried_NPK = _LogProbs.apply(logits_NTV, tokens_NT, queries, temperature)  # type: ignore[no-untyped-call]
    return TokenLogProbs(
        drawn_GST=drawn_NT.view(tokens_GST.shape),
        queried_GSPK=None if queries is None else queried_NPK.unflatten(0, tokens_GST.shape[:2]),
    )


class _LogProbs(torch.autograd.Function):
    """Drawn tokens [N, T] at the temperature and asked ones [N, P, K] at 1.

    The vocabulary's log-probs are what the backward pass needs, and all that it writes is the
    gradient. Of the library's functions, one after the other, each would write as much again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_NTV: Tensor,
        tokens_NT: Tensor,
        queries: TokenQueries | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor | None]:
        log_prob_NTV = _log_softmax(logits_NTV, temperature)
        drawn_NT = log_prob_NTV.gather(-1, tokens_NT[..., None])[..., 0]
        asked_NPV = queried_NPK = None
        if queries is not None:
            asked_NPV = logits_NTV[:, queries.positions_P].log_softmax(dim=-1)
            queried_NPK = asked_NPV[..., queries.token_ids_K]
        ctx.save_for_backward(tokens_NT, log_prob_NTV, asked_NPV)
        ctx.queries, ctx.temperature = queries, temperature
        return drawn_NT, queried_NPK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, gradient_NT: Tensor, gradient_NPK: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        tokens_NT, log_prob_NTV, asked_NPV = ctx.saved_tensors
        gradient_NT1 = tempered(gradient_NT, ctx.temperature)[..., None]
        gradient_NTV = log_prob_NTV.exp().mul_(-gradient_NT1)
        gradient_NTV.scatter_add_(-1, tokens_NT[..., None], gradient_NT1)
        if ctx.queries is not None and gradient_NPK is not None:
            asked_NPV = asked_NPV.exp().mul_(-gradient_NPK.sum(dim=-1, keepdim=True))
            asked_NPV.index_add_(-1, ctx.queries.token_ids_K, gradient_NPK)
            gradient_NTV.index_add_(1, ctx.queries.positions_P, asked_NPV)
        return gradient_NTV, None, None, None


def _log_softmax(logits_NTV: Tensor, temperature: float) -> Tensor:
    if temperature == 1.0 or logits_NTV.device.type != "cpu":
        return tempered(logits_NTV, temperature).log_softmax(dim=-1)
    log_prob_NTV = torch.empty_like(logits_NTV)
    num_cached = max(1, _CACHED_LOGITS * torch.get_num_threads() // logits_NTV[0].numel())
    for logits, log_prob in zip(
        logits_NTV.split(num_cached), log_prob_NTV.split(num_cached), strict=True
    ):
        torch.log_softmax(tempered(logits, temperature), dim=-1, out=log_prob)
    return log_prob_NTV
