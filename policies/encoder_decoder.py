"""ViT encoder + autoregressive token decoder (big_vision models/proj/uvim/vtt.py).

Axes: G groups (images), S sequences of a group, N = G*S, T tokens, P patches, D width,
V vocabulary.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor, nn

from layers import DecoderBlock, Dense, Encoder, LayerNorm, PatchEmbedding, sincos2d
from layers.transformer import run_block
from policies.decoding import decode
from policies.draw import Decoding
from policies.policy import Samples, TokenLogProbs, TokenQueries


class EncoderDecoderConfig(BaseModel):
    """Sizes of the network; stored beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_size: PositiveInt
    """Side of the square input image, in pixels."""
    patch_size: PositiveInt
    width: PositiveInt
    num_heads: PositiveInt
    mlp_width: PositiveInt
    encoder_depth: PositiveInt
    decoder_depth: PositiveInt
    vocab_size: PositiveInt
    sequence_length: PositiveInt
    position_embedding: Literal["learned", "sincos2d"] = "learned"

    @model_validator(mode="after")
    def _sizes_divide(self) -> EncoderDecoderConfig:
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is no multiple of patch_size {self.patch_size}"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        return self

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.input_size // self.patch_size


class TokenHead(nn.Module):
    """Decoder states [..., D] to float32 logits [..., V]."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.project = Dense(width, vocab_size, is_head=True)

    def forward(self, state: Tensor) -> Tensor:
        # Outside autocast: the log-probs of policies one step apart differ in digits that
        # bfloat16 does not have.
        with torch.autocast(state.device.type, enabled=False):
            return self.project.forward(state.float())


class TokenDecoder(nn.Module):
    """Token sequences and encoded images to the state before each next token."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Parameter(torch.empty(config.vocab_size, config.width).normal_())
        self.position_embedding = _position_embedding(
            config, rows=1, columns=config.sequence_length
        )
        self.blocks = nn.ModuleList(
            DecoderBlock(config.width, config.num_heads, config.mlp_width)
            for _ in range(config.decoder_depth)
        )
        self.norm = LayerNorm(config.width)
        self.head = TokenHead(config.width, config.vocab_size)

    def forward(self, tokens_NT: Tensor, context_GPD: Tensor, *, recompute: bool) -> Tensor:
        """Teacher forcing: state[t] has seen tokens before t and predicts tokens[t]."""
        # Token 0 is the start symbol as well as padding.
        inputs_NT = F.pad(tokens_NT[:, :-1], (1, 0))
        x_NTD = F.embedding(inputs_NT, self.token_embedding)
        x_NTD = x_NTD + self.position_embedding[:, : tokens_NT.shape[1]]
        for block in self.blocks:
            x_NTD = run_block(block, x_NTD, context_GPD, recompute=recompute)
        return self.norm.forward(x_NTD)


class EncoderDecoder(nn.Module):
    """An image to a distribution over token sequences; a ``Policy``."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config.patch_size, config.width)
        self.position_embedding = _position_embedding(
            config, rows=config.grid_size, columns=config.grid_size
        )
        self.encoder = Encoder(
            depth=config.encoder_depth,
            width=config.width,
            num_heads=config.num_heads,
            mlp_width=config.mlp_width,
        )
        self.decoder = TokenDecoder(config)

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def input_size(self) -> int:
        return self.config.input_size

    def encode(self, images_GHWC: Tensor, *, recompute: bool = False) -> Tensor:
        """Images in [-1, 1] to context [G, P, D]."""
        # Pictures come as float32, also to a sampler whose weights are bfloat16.
        images_GHWC = images_GHWC.to(self.patch_embedding.kernel.dtype)
        x_GPD = self.patch_embedding.forward(images_GHWC) + self.position_embedding
        return self.encoder.forward(x_GPD, recompute=recompute)

    def logits(self, context_GPD: Tensor, tokens_NT: Tensor, *, recompute: bool = False) -> Tensor:
        """Teacher-forced logits [N, T, V] of sequences whose groups stand next to each other."""
        state_NTD = self.decoder.forward(tokens_NT, context_GPD, recompute=recompute)
        logits_NTV: Tensor = self.decoder.head.forward(state_NTD)
        return logits_NTV

    def log_prob(
        self,
        images_GHWC: Tensor,
        tokens_GST: Tensor,
        *,
        queries: TokenQueries | None = None,
        recompute: bool = False,
    ) -> TokenLogProbs:
        """See ``Policy.log_prob``."""
        context_GPD = self.encode(images_GHWC, recompute=recompute)
        tokens_NT = tokens_GST.flatten(0, 1)
        logits_NTV = self.logits(context_GPD, tokens_NT, recompute=recompute)
        drawn_NT = -F.cross_entropy(
            logits_NTV.flatten(0, 1), tokens_NT.flatten(), reduction="none"
        ).view(tokens_NT.shape)
        queried_NPK = None
        if queries is not None:
            at_NPV = logits_NTV[:, queries.positions_P]
            queried_NPK = at_NPV[..., queries.token_ids_K] - at_NPV.logsumexp(-1, keepdim=True)
        group_shape = tokens_GST.shape[:2]
        return TokenLogProbs(
            drawn_GST=drawn_NT.unflatten(0, group_shape),
            queried_GSPK=None if queried_NPK is None else queried_NPK.unflatten(0, group_shape),
        )

    @torch.no_grad()
    def sample(
        self,
        images_GHWC: Tensor,
        uniforms_GST: Tensor,
        *,
        decoding: Decoding,
        probe_tokens: tuple[int, ...] = (),
        stop_token: int | None = None,
    ) -> Samples:
        """See ``Policy.sample``."""
        started = time.perf_counter()
        context_GPD = self.encode(images_GHWC)
        if context_GPD.is_cuda:
            torch.cuda.synchronize()  # else the clock would measure the launch alone
        encode_seconds = time.perf_counter() - started
        samples = decode(
            self.decoder,
            context_GPD,
            uniforms_GST,
            decoding=decoding,
            probe_tokens=probe_tokens,
            stop_token=stop_token,
        )
        return replace(samples, encode_seconds=encode_seconds)


def _position_embedding(config: EncoderDecoderConfig, *, rows: int, columns: int) -> Tensor:
    if config.position_embedding == "sincos2d":
        return nn.Buffer(sincos2d(rows, columns, config.width), persistent=False)
    learned = torch.empty(1, rows * columns, config.width)
    return nn.Parameter(learned.normal_(std=1 / math.sqrt(config.width)))
