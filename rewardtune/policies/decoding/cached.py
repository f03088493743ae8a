"""Drawing token sequences with cached keys and values.

Keys and values of the image stand once per group; those of the tokens drawn so far in a cache
of fixed size.

Axes: G groups, S sequences of a group, N = G*S, T tokens, P patches, D width, H heads, E width
of a head, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardtune.layers.attention import AttentionRead, CrossAttention, fused_projection, split_heads
from rewardtune.layers.dense import LAYER_NORM_EPSILON, LayerNorm
from rewardtune.layers.prepared import PreparedLinear
from rewardtune.layers.transformer import DecoderBlock
from rewardtune.policies.decoding.left_to_right import draw_left_to_right
from rewardtune.policies.decoding.past import token_past
from rewardtune.policies.draw import Decoding
from rewardtune.policies.networks.readout import Readout, ReadoutBlock
from rewardtune.policies.networks.token_decoder import TokenDecoder
from rewardtune.policies.networks.token_head import TokenHead
from rewardtune.policies.policy import Samples


class _Norm:
    def __init__(self, norm: LayerNorm, dtype: torch.dtype) -> None:
        self._scale, self._bias = norm.scale.to(dtype), norm.bias.to(dtype)

    def apply(self, x_ND: Tensor) -> Tensor:
        return torch.layer_norm(
            x_ND, self._scale.shape, self._scale, self._bias, LAYER_NORM_EPSILON
        )


class _ImageKeys:
    """Keys and values of the images, B = G*H heads."""

    def __init__(self, attention: CrossAttention, context_GPD: Tensor) -> None:
        kernel, _ = fused_projection(attention.key, attention.value)
        keys, values = (
            split_heads(part, attention.num_heads).flatten(0, 1)
            for part in (context_GPD @ kernel.to(context_GPD.dtype)).chunk(2, dim=-1)
        )
        self.keys_BPE, self.values_BPE = keys.contiguous(), values.contiguous()


class _ImageAttention:
    """Cross-attention; the queries of all of a group's sequences are one matrix."""

    def __init__(
        self, attention: CrossAttention | AttentionRead, image: _ImageKeys, num_sequences: int
    ) -> None:
        num_heads, dtype = attention.num_heads, image.keys_BPE.dtype
        head_width = image.keys_BPE.shape[-1]
        self._shape_GSHE = (len(image.keys_BPE) // num_heads, -1, num_heads, head_width)
        self._query = PreparedLinear(
            _scaled(attention.query.kernel), None, dtype=dtype, num_rows=num_sequences
        )
        self._out = PreparedLinear(
            attention.out.kernel.flatten(0, 1), None, dtype=dtype, num_rows=num_sequences
        )
        self._image = image

    def apply(self, x_ND: Tensor, residual_ND: Tensor) -> Tensor:
        query_GSHE = self._query.apply(x_ND).view(self._shape_GSHE)
        query_BSE = query_GSHE.transpose(1, 2).flatten(0, 1)
        weights_BSP = torch.bmm(query_BSE, self._image.keys_BPE.transpose(1, 2)).softmax(dim=-1)
        mixed_BSE = torch.bmm(weights_BSP, self._image.values_BPE)
        mixed_GSHE = mixed_BSE.unflatten(0, (len(query_GSHE), -1)).transpose(1, 2)
        return self._out.apply_added(mixed_GSHE.reshape(x_ND.shape), residual_ND)


class _AfterPast:
    """What a block does with what it mixed from the past: projection, image, MLP."""

    def __init__(
        self, block: DecoderBlock | ReadoutBlock, image: _ImageKeys, num_sequences: int
    ) -> None:
        dtype = image.keys_BPE.dtype

        def prepare(kernel: Tensor, bias: Tensor | None = None) -> PreparedLinear:
            return PreparedLinear(kernel, bias, dtype=dtype, num_rows=num_sequences)

        self._out = prepare(block.self_attention.out.kernel.flatten(0, 1))
        self._norm_1, self._norm_2 = _Norm(block.norm_1, dtype), _Norm(block.norm_2, dtype)
        self._image = _ImageAttention(block.cross_attention, image, num_sequences)
        self._dense_0 = prepare(block.mlp.dense_0.kernel, block.mlp.dense_0.bias)
        self._dense_1 = prepare(block.mlp.dense_1.kernel, block.mlp.dense_1.bias)

    def apply(self, mixed_ND: Tensor, x_ND: Tensor) -> Tensor:
        x_ND = self._out.apply_added(mixed_ND, x_ND)
        x_ND = self._image.apply(self._norm_1.apply(x_ND), x_ND)
        hidden = self._dense_0.apply_gelu(self._norm_2.apply(x_ND))
        return self._dense_1.apply_added(hidden, x_ND)


class _Block:
    """One decoder block's weights and caches for one call of ``decode``."""

    def __init__(
        self, block: DecoderBlock, context_GPD: Tensor, num_sequences: int, length: int
    ) -> None:
        dtype, attention = context_GPD.dtype, block.self_attention
        kernels = (attention.key.kernel.flatten(1), attention.value.kernel.flatten(1))
        self._norm = _Norm(block.norm_0, dtype)
        self._fused = PreparedLinear(
            torch.cat([_scaled(attention.query.kernel), *kernels], dim=1),
            None,
            dtype=dtype,
            num_rows=num_sequences,
        )
        self.past = token_past(
            num_sequences=num_sequences,
            length=length,
            num_heads=attention.num_heads,
            like_D=context_GPD,
        )
        self.image = _ImageKeys(block.cross_attention, context_GPD)
        self._after_past = _AfterPast(block, self.image, num_sequences)
        self.fused_NX: Tensor
        """Queries, keys and values of the newest tokens."""

    def step(self, x_ND: Tensor, position: int) -> Tensor:
        self.fused_NX = self._fused.apply(self._norm.apply(x_ND))
        return self._after_past.apply(self.past.attend(self.fused_NX, position), x_ND)


class _ReadoutBlock:
    """A readout's block at work on what a decoder block keeps."""

    def __init__(self, own: ReadoutBlock, block: _Block, num_sequences: int) -> None:
        dtype = block.image.keys_BPE.dtype
        self._block = block
        self._norm = _Norm(own.norm_0, dtype)
        self._query = PreparedLinear(
            _scaled(own.self_attention.query.kernel), None, dtype=dtype, num_rows=num_sequences
        )
        self._after_past = _AfterPast(own, block.image, num_sequences)

    def step(self, x_ND: Tensor, position: int) -> Tensor:
        """After the block's own step at this position."""
        query_ND = self._query.apply(self._norm.apply(x_ND))
        # The past keeps the block's keys and values again, which changes nothing.
        fused_NX = torch.cat([query_ND, self._block.fused_NX[:, query_ND.shape[1] :]], dim=1)
        return self._after_past.apply(self._block.past.attend(fused_NX, position), x_ND)


def _scaled(kernel_DHE: Tensor) -> Tensor:
    """Query kernel [D, H*E] with the score's 1/sqrt(E) in it, so that no step multiplies by it."""
    return kernel_DHE.flatten(1) / math.sqrt(kernel_DHE.shape[-1])


class _Logits:
    """The last states to float32 logits."""

    def __init__(
        self, norm: LayerNorm, head: TokenHead, dtype: torch.dtype, num_sequences: int
    ) -> None:
        self._norm = _Norm(norm, dtype)
        self._project = PreparedLinear(
            head.project.kernel, head.project.bias, dtype=torch.float32, num_rows=num_sequences
        )

    def apply(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The logits and what the head was given."""
        normed_ND = self._norm.apply(x_ND)
        return self._project.apply(normed_ND.float()), normed_ND


class _Readout:
    """``rewardtune.policies.networks.readout`` at work on what the decoder's blocks keep."""

    def __init__(
        self, readout: Readout, blocks: list[_Block], dtype: torch.dtype, num_sequences: int
    ) -> None:
        self._every = readout.every
        self._blocks = [
            _ReadoutBlock(own, block, num_sequences)  # type: ignore[arg-type]
            for own, block in zip(readout.blocks, blocks, strict=True)
        ]
        self._logits = _Logits(readout.norm, readout.head, dtype, num_sequences)
        self._drawn = PreparedLinear(
            readout.drawn.kernel, readout.drawn.bias, dtype=dtype, num_rows=num_sequences
        )
        self._drawn_END: list[Tensor] = []
        self.seen = readout.seen

    def reads(self, position: int) -> bool:
        return position % self._every == self._every - 1

    def keep(self, drawn_ND: Tensor) -> None:
        """What the decoder's head was given at a token that is not read out."""
        self._drawn_END.append(drawn_ND)

    def logits(self, embedded_ND: Tensor, position: int) -> Tensor:
        x_ND = self._drawn.apply_added(torch.cat(self._drawn_END, dim=1), embedded_ND)
        self._drawn_END.clear()
        for block in self._blocks:
            x_ND = block.step(x_ND, position)
        return self._logits.apply(x_ND)[0]


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
        self._logits = _Logits(decoder.norm, decoder.head, self._dtype, num_sequences)
        self._readout = None
        if decoder.readout is not None:
            self._readout = _Readout(decoder.readout, self._blocks, self._dtype, num_sequences)

    def logits(self, token_N: Tensor, position: int) -> Tensor:
        """Float32 [N, V], given the token before ``position``."""
        if self._readout is not None:
            token_N = self._readout.seen(token_N[:, None], position)[:, 0]
        x_ND = F.embedding(token_N, self._token_embedding)
        x_ND = (x_ND + self._position_embedding_TD[position]).to(self._dtype)
        embedded_ND = x_ND
        for block in self._blocks:
            x_ND = block.step(x_ND, position)
        if self._readout is not None and self._readout.reads(position):
            return self._readout.logits(embedded_ND, position)
        logits_NV, drawn_ND = self._logits.apply(x_ND)
        if self._readout is not None:
            self._readout.keep(drawn_ND)
        return logits_NV


@torch.no_grad()
def decode(
    decoder: TokenDecoder,
    context_GPD: Tensor,
    uniforms_GST: Tensor,
    *,
    decoding: Decoding,
    probe_tokens: tuple[int, ...],
    stop_tokens: tuple[int, ...],
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
            stop_tokens=stop_tokens,
        )
