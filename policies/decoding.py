"""Drawing token sequences with cached keys and values.

Keys and values of the image stand once per group; those of the tokens drawn so far in a cache
of fixed size.

Axes: G groups, S sequences of a group, N = G*S, T tokens, P patches, D width, H heads, E width
of a head, V vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from layers.attention import CrossAttention, fused_projection, split_heads
from layers.dense import LAYER_NORM_EPSILON, LayerNorm
from layers.prepared import PreparedLinear
from layers.transformer import DecoderBlock
from policies.draw import Decoding
from policies.left_to_right import draw_left_to_right
from policies.past import token_past
from policies.policy import Samples

if TYPE_CHECKING:
    from policies.encoder_decoder import TokenDecoder


class _Norm:
    def __init__(self, norm: LayerNorm, dtype: torch.dtype) -> None:
        self._scale, self._bias = norm.scale.to(dtype), norm.bias.to(dtype)

    def apply(self, x_ND: Tensor) -> Tensor:
        return torch.layer_norm(
            x_ND, self._scale.shape, self._scale, self._bias, LAYER_NORM_EPSILON
        )


class _ImageAttention:
    """Cross-attention; the queries of all of a group's sequences are one matrix."""

    def __init__(self, attention: CrossAttention, context_GPD: Tensor, num_sequences: int) -> None:
        num_heads, dtype = attention.num_heads, context_GPD.dtype
        self._shape_GSHE = (len(context_GPD), -1, num_heads, context_GPD.shape[-1] // num_heads)
        self._query = PreparedLinear(
            _scaled(attention.query.kernel), None, dtype=dtype, num_rows=num_sequences
        )
        self._out = PreparedLinear(
            attention.out.kernel.flatten(0, 1), None, dtype=dtype, num_rows=num_sequences
        )
        kernel, _ = fused_projection(attention.key, attention.value)
        keys, values = (
            split_heads(part, num_heads).flatten(0, 1)
            for part in (context_GPD @ kernel.to(dtype)).chunk(2, dim=-1)
        )
        self._keys_BPE, self._values_BPE = keys.contiguous(), values.contiguous()  # B = G*H

    def apply(self, x_ND: Tensor, residual_ND: Tensor) -> Tensor:
        query_GSHE = self._query.apply(x_ND).view(self._shape_GSHE)
        query_BSE = query_GSHE.transpose(1, 2).flatten(0, 1)
        weights_BSP = torch.bmm(query_BSE, self._keys_BPE.transpose(1, 2)).softmax(dim=-1)
        mixed_BSE = torch.bmm(weights_BSP, self._values_BPE)
        mixed_GSHE = mixed_BSE.unflatten(0, (len(query_GSHE), -1)).transpose(1, 2)
        return self._out.apply_added(mixed_GSHE.reshape(x_ND.shape), residual_ND)


class _Block:
    """One decoder block's weights and caches for one call of ``decode``."""

    def __init__(
        self, block: DecoderBlock, context_GPD: Tensor, num_sequences: int, length: int
    ) -> None:
        dtype, attention = context_GPD.dtype, block.self_attention

        def prepare(kernel: Tensor, bias: Tensor | None = None) -> PreparedLinear:
            return PreparedLinear(kernel, bias, dtype=dtype, num_rows=num_sequences)

        kernels = (attention.key.kernel.flatten(1), attention.value.kernel.flatten(1))
        self._norms = [_Norm(n, dtype) for n in (block.norm_0, block.norm_1, block.norm_2)]
        self._fused = prepare(torch.cat([_scaled(attention.query.kernel), *kernels], dim=1))
        self._past = token_past(
            num_sequences=num_sequences,
            length=length,
            num_heads=attention.num_heads,
            like_D=context_GPD,
        )
        self._out = prepare(attention.out.kernel.flatten(0, 1))
        self._image = _ImageAttention(block.cross_attention, context_GPD, num_sequences)
        self._dense_0 = prepare(block.mlp.dense_0.kernel, block.mlp.dense_0.bias)
        self._dense_1 = prepare(block.mlp.dense_1.kernel, block.mlp.dense_1.bias)

    def step(self, x_ND: Tensor, position: int) -> Tensor:
        fused_NX = self._fused.apply(self._norms[0].apply(x_ND))
        x_ND = self._out.apply_added(self._past.attend(fused_NX, position), x_ND)
        x_ND = self._image.apply(self._norms[1].apply(x_ND), x_ND)
        hidden = self._dense_0.apply_gelu(self._norms[2].apply(x_ND))
        return self._dense_1.apply_added(hidden, x_ND)


def _scaled(kernel_DHE: Tensor) -> Tensor:
    """Query kernel [D, H*E] with the score's 1/sqrt(E) in it, so that no step multiplies by it."""
    return kernel_DHE.flatten(1) / math.sqrt(kernel_DHE.shape[-1])


class _Network:
    """The decoder for one call of ``decode``: from each token to the logits of the next."""

    def __init__(
        self, decoder: TokenDecoder, context_GPD: Tensor, num_sequences: int, length: int
    ) -> None:
        self._dtype = context_GPD.dtype
        self._token_embedding = decoder.token_embedding
        self._position_embedding_TD = decoder.position_embedding[0]
        self._blocks = [
            _Block(block, context_GPD, num_sequences, length)  # type: ignore[arg-type]
            for block in decoder.blocks
        ]
        self._norm = _Norm(decoder.norm, self._dtype)
        project = decoder.head.project
        self._head = PreparedLinear(
            project.kernel, project.bias, dtype=torch.float32, num_rows=num_sequences
        )

    def logits(self, token_N: Tensor, position: int) -> Tensor:
        """Float32 [N, V], given the token before ``position``."""
        x_ND = F.embedding(token_N, self._token_embedding)
        x_ND = (x_ND + self._position_embedding_TD[position]).to(self._dtype)
        for block in self._blocks:
            x_ND = block.step(x_ND, position)
        return self._head.apply(self._norm.apply(x_ND).float())


@torch.no_grad()
def decode(
    decoder: TokenDecoder,
    context_GPD: Tensor,
    uniforms_GST: Tensor,
    *,
    decoding: Decoding,
    probe_tokens: tuple[int, ...],
    stop_token: int | None,
) -> Samples:
    """Draw ``uniforms_GST.shape[1]`` sequences for each encoded image; see ``Policy.sample``.

    Computes in the context's dtype, but for the head: its logits are float32.
    """
    num_groups, num_samples, length = uniforms_GST.shape
    # Its own dtypes, whatever the caller's autocast.
    with torch.autocast(context_GPD.device.type, enabled=False):
        return draw_left_to_right(
            _Network(decoder, context_GPD, num_groups * num_samples, length),
            uniforms_GST,
            decoding=decoding,
            probe_tokens=probe_tokens,
            stop_token=stop_token,
        )
