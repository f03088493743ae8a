"""A policy carried to other classes, another input size, another length, or a readout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from rewardtune.layers import resample_position_embedding
from rewardtune.layers.initialize import sizes_only
from rewardtune.layers.position import tokens_alike
from rewardtune.policies.networks.vit import EncoderDecoderConfig, VitPolicy
from rewardtune.policies.policy_file import differences

Carried = TypeVar("Carried", bound=VitPolicy)
# What may differ between the two vocabularies; the classes are the last tokens of each.
_MAY_DIFFER = frozenset({"vocab_size", "sequence_length", "num_classes", "class_names"})


@torch.no_grad()
def carry(
    policy: Carried,
    *,
    vocabulary_from: Mapping[str, Any],
    vocabulary_to: Mapping[str, Any],
    input_size: int | None = None,
) -> Carried:
    """Start a policy for another task's vocabulary and input size from one that was trained.

    All tokens before the classes keep their rows in the token embedding and in the head. Those
    of the classes start afresh, N(0, 1) and 0, unless both lists name the same classes in the
    same order. A learned position embedding is resampled to the new grid in the encoder, and in
    the decoder cut to the new length, or continued as a fresh one begins. All else is copied.

    Draws from torch's random numbers only where class rows start afresh.

    Args:
        policy: left as it is.
        vocabulary_from, vocabulary_to: the old and the new task's ``vocabulary.describe()``.
        input_size: side of the new input in pixels; None keeps the old.

    Raises:
        ValueError: the vocabularies differ in more than classes and length.

    Source: Pinto et al. 2023, arXiv:2302.08242, table 6; algorithm spec 6.2 and 12.4.
    """
    num_kept = _num_kept(policy, vocabulary_from, vocabulary_to)
    config = EncoderDecoderConfig.model_validate(
        {
            **policy.config.model_dump(),
            "input_size": policy.config.input_size if input_size is None else input_size,
            "vocab_size": vocabulary_to["vocab_size"],
            "sequence_length": vocabulary_to.get("sequence_length", policy.sequence_length),
        }
    )
    state = {name: parameter.clone() for name, parameter in policy.named_parameters()}
    if num_kept is not None:
        num_new = config.vocab_size - num_kept
        embedding_VD = state["decoder.token_embedding"]
        fresh = embedding_VD.new_empty(num_new, config.width).normal_()
        state["decoder.token_embedding"] = torch.cat([embedding_VD[:num_kept], fresh])
        for name in [n for n in state if ".head.project." in n]:
            kept = state[name][..., :num_kept]
            state[name] = torch.cat([kept, kept.new_zeros(*kept.shape[:-1], num_new)], dim=-1)
    if config.position_embedding == "learned":
        state["position_embedding"] = resample_position_embedding(
            state["position_embedding"],
            old_grid=(policy.config.grid_size, policy.config.grid_size),
            new_grid=(config.grid_size, config.grid_size),
        )
        state["decoder.position_embedding"] = _of_length(
            state["decoder.position_embedding"], config.sequence_length
        )
    with sizes_only():
        carried = type(policy)(config)
    carried.load_state_dict(state, assign=True)
    return carried.to(policy.position_embedding.device)


def _num_kept(policy: VitPolicy, found: Mapping[str, Any], needed: Mapping[str, Any]) -> int | None:
    """How many tokens come before the classes; None if the classes are the same too."""
    others = [{k: v for k, v in d.items() if k not in _MAY_DIFFER} for d in (found, needed)]
    if others[0] != others[1]:
        raise ValueError(
            f"cannot carry the policy's tokens over: {differences(*others)}. Only classes and "
            f"sequence length may differ: change the task's options, or start without checkpoint"
        )
    if found["vocab_size"] != policy.vocab_size:
        raise ValueError(
            f"the policy has {policy.vocab_size} tokens, but the vocabulary given as its own "
            f"describes {found['vocab_size']}"
        )
    if found.get("class_names") == needed.get("class_names") and (
        found["vocab_size"] == needed["vocab_size"]
    ):
        return None
    before = [d["vocab_size"] - d.get("num_classes", 0) for d in (found, needed)]
    if before[0] != before[1]:
        raise ValueError(
            f"cannot carry the policy's tokens over: it has {before[0]} before its classes, but "
            f"the task has {before[1]}. Change the task's options, or start without checkpoint"
        )
    return int(before[0])


def _of_length(embedding_1TD: Tensor, length: int) -> Tensor:
    """The first positions of an embedding; where it has fewer, the rest as a fresh one's begin."""
    learned = embedding_1TD[:, :length]
    fresh = tokens_alike(length, embedding_1TD.shape[2])[:, learned.shape[1] :]
    return torch.cat([learned, fresh.to(learned)], dim=1)


@torch.no_grad()
def with_readout(policy: Carried, every: int, *, seen_as: int | None = None) -> Carried:
    """The policy with a readout for the last of ``every`` tokens; itself if it has this one.

    It starts as a copy of the decoder's own weights, so no token's distribution changes.

    Raises:
        ValueError: it has another, sequences are no multiple of ``every`` long, or ``seen_as`` is
            no token.
    """
    has = policy.config
    if has.readout_every is not None:
        for key, value, found in (
            ("readout_every", every, has.readout_every),
            ("readout_seen_as", seen_as, has.readout_seen_as),
        ):
            if value not in (None, found):
                raise ValueError(
                    f"policy.{key} = {value} but the checkpoint has {found}: leave the keys of the "
                    "readout out to take the checkpoint's"
                )
        return policy
    if policy.sequence_length % every:
        raise ValueError(
            f"policy.readout_every = {every} does not divide the {policy.sequence_length} tokens "
            "of a sequence: set policy.readout = true instead, which takes the task's own steps"
        )
    if seen_as is not None and seen_as >= policy.vocab_size:
        raise ValueError(
            f"policy.readout_seen_as = {seen_as} is none of the policy's {policy.vocab_size} "
            "tokens: set policy.readout = true instead, which takes it from the task"
        )
    sizes = {**policy.config.model_dump(), "readout_every": every, "readout_seen_as": seen_as}
    config = EncoderDecoderConfig.model_validate(sizes)
    with sizes_only():
        extended = type(policy)(config)
    own = policy.tensors()
    state = {}
    for name, parameter in extended.named_parameters():
        copied = own.get(name.replace("decoder.readout.", "decoder."))
        if copied is None:  # of the states that drew the other tokens it makes nothing yet
            copied = torch.zeros_like(parameter, device="cpu")
        state[name] = copied.detach().clone()
    extended.load_state_dict(state, assign=True)
    return extended.to(policy.position_embedding.device)
