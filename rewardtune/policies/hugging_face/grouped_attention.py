"""Attention of transformers' decoders to an image that several sequences share.

transformers computes and caches an image's keys and values once per sequence. Registered as an
attention implementation of its own, this one takes them once per group: the queries of all of a
group's sequences become one long list of queries.

Axes: G groups (images), S sequences of a group, N = G*S, H heads, T queries of a sequence, P keys,
E width of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "rewardtune_grouped"


def grouped_attention(
    module: nn.Module,
    query_NHTE: Tensor,
    key_GHPE: Tensor,
    value_GHPE: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """torch's attention; where there are fewer keys than queries, those of a group share theirs.

    Returns:
        What was mixed, [N, T, H, E], as transformers has it; and no attention weights.
    """
    num_sequences, num_groups = len(query_NHTE), len(key_GHPE)
    if num_sequences == num_groups:
        mixed_NTHE = sdpa_attention_forward(
            module, query_NHTE, key_GHPE, value_GHPE, attention_mask, **options
        )[0]
        return mixed_NTHE, None
    num_queries = query_NHTE.shape[2]
    per_group = query_NHTE.unflatten(0, (num_groups, -1)).transpose(1, 2)  # [G, H, S, T, E]
    # Every query sees the whole image, so there is neither a mask nor an order among them.
    mixed_GXHE = sdpa_attention_forward(
        module, per_group.flatten(2, 3), key_GHPE, value_GHPE, None,
        **{**options, "is_causal": False},
    )[0]  # fmt: skip
    return mixed_GXHE.reshape(num_sequences, num_queries, *mixed_GXHE.shape[2:]), None


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
