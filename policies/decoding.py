"""Drawing token sequences with cached keys and values.

Keys and values of the image stand once per group; those of the tokens drawn so far in a cache
of fixed size. Nothing in the loop waits for the device.

Axes: G groups, S sequences of a group, N = G*S, T tokens, P patches, D width, H heads, E width
of a head, V vocabulary, Q probed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from layers.attention import fused_projection, split_heads
from layers.dense import LAYER_NORM_EPSILON, LayerNorm
from layers.transformer import DecoderBlock
from policies.draw import Decoding, draw_tokens
from policies.policy import Samples

if TYPE_CHECKING:
    from policies.encoder_decoder import TokenDecoder


@dataclass(frozen=True, slots=True)
class _BlockState:
    """One decoder block's weights as single matrices, and its caches for one call."""

    block: DecoderBlock
    qkv_DX: Tensor
    self_out_DD: Tensor
    cross_query_DD: Tensor
    cross_out_DD: Tensor
    key_cache_NHTE: Tensor
    value_cache_NHTE: Tensor
    context_key_GHPE: Tensor
    context_value_GHPE: Tensor


def _prepare(
    block: DecoderBlock, context_GPD: Tensor, num_sequences: int, length: int
) -> _BlockState:
    attention, cross = block.self_attention, block.cross_attention
    dtype, num_heads = context_GPD.dtype, attention.num_heads
    qkv, _ = fused_projection(attention.query, attention.key, attention.value)
    context_kv, _ = fused_projection(cross.key, cross.value)
    key, value = (context_GPD @ context_kv.to(dtype)).chunk(2, dim=-1)
    head_width = context_GPD.shape[-1] // num_heads
    # The score's 1/sqrt(E) goes into the query weights, once per call.
    cache = context_GPD.new_zeros(2, num_sequences, num_heads, length, head_width)
    return _BlockState(
        block=block,
        qkv_DX=qkv.to(dtype),
        self_out_DD=attention.out.kernel.flatten(0, 1).to(dtype),
        cross_query_DD=cross.query.kernel.flatten(1).to(dtype),
        cross_out_DD=cross.out.kernel.flatten(0, 1).to(dtype),
        key_cache_NHTE=cache[0],
        value_cache_NHTE=cache[1],
        context_key_GHPE=split_heads(key, num_heads).contiguous(),
        context_value_GHPE=split_heads(value, num_heads).contiguous(),
    )


def _normalise(norm: LayerNorm, x_ND: Tensor) -> Tensor:
    scale, bias = norm.scale.to(x_ND.dtype), norm.bias.to(x_ND.dtype)
    return F.layer_norm(x_ND, scale.shape, scale, bias, LAYER_NORM_EPSILON)


def _step(state: _BlockState, x_ND: Tensor, position: int) -> Tensor:
    block = state.block
    num_groups, num_heads, _, head_width = state.context_key_GHPE.shape
    num_sequences = x_ND.shape[0]

    fused = _normalise(block.norm_0, x_ND) @ state.qkv_DX
    query, key, value = fused.view(num_sequences, 3, num_heads, head_width).unbind(1)
    state.key_cache_NHTE[:, :, position] = key
    state.value_cache_NHTE[:, :, position] = value
    mixed = F.scaled_dot_product_attention(
        query[:, :, None],
        state.key_cache_NHTE[:, :, : position + 1],
        state.value_cache_NHTE[:, :, : position + 1],
    )
    x_ND = torch.addmm(x_ND, mixed.reshape(num_sequences, -1), state.self_out_DD)

    query = _normalise(block.norm_1, x_ND) @ state.cross_query_DD
    query = query.view(num_groups, -1, num_heads, head_width).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, state.context_key_GHPE, state.context_value_GHPE)
    mixed = mixed.transpose(1, 2).reshape(num_sequences, -1)
    x_ND = torch.addmm(x_ND, mixed, state.cross_out_DD)

    mlp = block.mlp
    hidden = F.linear(_normalise(block.norm_2, x_ND), mlp.dense_0.kernel.t(), mlp.dense_0.bias)
    hidden = F.gelu(hidden, approximate="tanh")
    return x_ND + F.linear(hidden, mlp.dense_1.kernel.t(), mlp.dense_1.bias)


def decode(
    decoder: TokenDecoder,
    context_GPD: Tensor,
    uniforms_GST: Tensor,
    *,
    decoding: Decoding,
    probe_tokens: tuple[int, ...],
    stop_token: int | None,
) -> Samples:
    """Draw ``uniforms_GST.shape[1]`` sequences for each encoded image; see ``Policy.sample``."""
    num_groups, num_samples, length = uniforms_GST.shape
    uniforms_NT = uniforms_GST.flatten(0, 1)
    num_sequences = num_groups * num_samples
    states = [
        _prepare(block, context_GPD, num_sequences, length)  # type: ignore[arg-type]
        for block in decoder.blocks
    ]
    device = context_GPD.device
    tokens_TN = torch.zeros(length, num_sequences, dtype=torch.int64, device=device)
    log_probs_TN = torch.zeros(length, num_sequences, device=device)
    probes = torch.tensor(probe_tokens, dtype=torch.int64, device=device)
    probe_log_probs_TNQ = torch.zeros(length, num_sequences, len(probe_tokens), device=device)
    is_finished_N = torch.zeros(num_sequences, dtype=torch.bool, device=device)
    token_N = torch.zeros(num_sequences, dtype=torch.int64, device=device)
    for position in range(length):
        x_ND = F.embedding(token_N, decoder.token_embedding)
        x_ND = (x_ND + decoder.position_embedding[0, position]).to(context_GPD.dtype)
        for state in states:
            x_ND = _step(state, x_ND, position)
        logits_NV = decoder.head.forward(_normalise(decoder.norm, x_ND))
        token_N = draw_tokens(logits_NV, uniforms_NT[:, position], decoding)
        normaliser_N1 = logits_NV.logsumexp(dim=-1, keepdim=True)
        log_prob_N = (logits_NV.gather(1, token_N[:, None]) - normaliser_N1).squeeze(1)
        probe_log_probs_TNQ[position] = logits_NV[:, probes] - normaliser_N1
        if stop_token is not None:
            token_N = token_N.masked_fill(is_finished_N, 0)
            log_prob_N = log_prob_N.masked_fill(is_finished_N, 0.0)
            is_finished_N = is_finished_N | (token_N == stop_token)
        tokens_TN[position] = token_N
        log_probs_TN[position] = log_prob_N
    shape = (num_groups, num_samples)
    return Samples(
        tokens_GST=tokens_TN.t().to(torch.int32).unflatten(0, shape),
        log_probs_GST=log_probs_TN.t().unflatten(0, shape),
        probe_log_probs_GSTQ=probe_log_probs_TNQ.transpose(0, 1).unflatten(0, shape),
    )
