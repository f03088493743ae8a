"""From logits to what ``Policy.log_prob`` returns.

Axes: G groups, S sequences of a group, N = G*S, T tokens, P positions, K token ids, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from policies.draw import tempered
from policies.policy import TokenLogProbs, TokenQueries


def log_probs_of(
    logits_NTV: Tensor, tokens_GST: Tensor, *, queries: TokenQueries | None, temperature: float
) -> TokenLogProbs:
    """Log-probs of sequences, and of whatever else is asked for, from all their logits."""
    tokens_NT = tokens_GST.flatten(0, 1)
    tempered_NTV = tempered(logits_NTV, temperature)
    drawn_NT = -F.cross_entropy(tempered_NTV.flatten(0, 1), tokens_NT.flatten(), reduction="none")
    queried_GSPK = None
    if queries is not None:
        at_NPV = logits_NTV[:, queries.positions_P]
        queried_NPK = at_NPV[..., queries.token_ids_K] - at_NPV.logsumexp(-1, keepdim=True)
        queried_GSPK = queried_NPK.unflatten(0, tokens_GST.shape[:2])
    return TokenLogProbs(drawn_GST=drawn_NT.view(tokens_GST.shape), queried_GSPK=queried_GSPK)
