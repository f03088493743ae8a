"""Log-probs of a micro-batch's sequences and their gradient, beside torch's functions in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bench.figure import Figure, figure
from bench.networks.sizes import DEMO
from bench.timing import interleaved, timed
from rewardtune.policies.log_probs import log_probs_of
from rewardtune.policies.policy import TokenLogProbs, TokenQueries

TEMPERATURE = 0.7


def demo(*, is_quick: bool) -> Iterator[Figure]:
    """8 images of 8 sequences; every class of each box and its confidence are asked for."""
    length, num_tokens = DEMO.sequence_length, DEMO.vocab_size
    queries = TokenQueries(
        torch.tensor([t for t in range(length) if t % 6 >= 4]),
        torch.tensor([1, 2, *range(num_tokens - 10, num_tokens)]),
    )
    yield log_probs_figure(
        torch.randn(64, length, num_tokens),
        torch.randint(num_tokens, (8, 8, length)),
        queries,
        num_rounds=5 if is_quick else 30,
    )


def log_probs_figure(
    logits_NTV: Tensor, tokens_GST: Tensor, queries: TokenQueries, *, num_rounds: int
) -> Figure:
    """Seconds of both passes; the floor reads the logits and writes the gradient once."""

    def both_passes(function: Callable[..., TokenLogProbs]) -> Callable[[], None]:
        def run() -> None:
            leaf = logits_NTV.requires_grad_()
            leaf.grad = None
            found = function(leaf, tokens_GST, queries=queries, temperature=TEMPERATURE)
            assert found.queried_GSPK is not None
            (found.drawn_GST.sum() + found.queried_GSPK.sum()).backward()

        return run

    seconds = interleaved(
        {
            "ours": timed(both_passes(log_probs_of)),
            "torch": timed(both_passes(by_torch)),
            "floor": timed(logits_NTV.detach().clone),
        },
        num_rounds=num_rounds,
    )
    return figure(
        "learner.log_probs",
        seconds["ours"],
        peer="torch's functions one after the other",
        peer_seconds=seconds["torch"],
        floor_seconds=seconds["floor"],
    )


def by_torch(
    logits_NTV: Tensor, tokens_GST: Tensor, *, queries: TokenQueries | None, temperature: float
) -> TokenLogProbs:
    """The definition, with a gradient by autograd."""
    tokens_NT1 = tokens_GST.flatten(0, 1)[..., None]
    drawn_NT1 = (logits_NTV / temperature).log_softmax(dim=-1).gather(-1, tokens_NT1)
    queried_GSPK = None
    if queries is not None:
        at_NPV = logits_NTV[:, queries.positions_P]
        queried_NPK = at_NPV[..., queries.token_ids_K] - at_NPV.logsumexp(dim=-1, keepdim=True)
        queried_GSPK = queried_NPK.unflatten(0, tokens_GST.shape[:2])
    return TokenLogProbs(drawn_GST=drawn_NT1.view(tokens_GST.shape), queried_GSPK=queried_GSPK)
