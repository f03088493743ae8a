"""What our own policies have in common: their sizes, and a ViT that encodes the image.

Axes: G groups (images), P patches, D width, H height, W width, C colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn

from rewardtune.datasets.frame import Framing, Square
from rewardtune.layers import Encoder, PatchEmbedding, sincos2d
from rewardtune.layers.initialize import sizes_only
from rewardtune.layers.position import patches_alike
from rewardtune.policies.policy import Policy


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
    readout_every: int | None = Field(default=None, ge=2)
    """The last of so many tokens has decoder blocks of its own (``readout.py``)."""
    readout_seen_as: PositiveInt | None = None
    """The token that later tokens see in place of one that was read out, whichever it was; of 0,
    the padding, they see 0. None: they see the token itself."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> EncoderDecoderConfig:
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is no multiple of patch_size {self.patch_size}"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        if self.sequence_length % (self.readout_every or 1):
            raise ValueError(
                f"sequence_length {self.sequence_length} is no multiple of readout_every "
                f"{self.readout_every}"
            )
        if self.readout_seen_as is not None:
            if self.readout_every is None:
                raise ValueError("readout_seen_as needs readout_every: nothing is read out without")
            if self.readout_seen_as >= self.vocab_size:
                raise ValueError(
                    f"readout_seen_as {self.readout_seen_as} is no token: there are "
                    f"{self.vocab_size}"
                )
        return self

    @property
    def grid_size(self) -> int:
        """Patches along one side of the image."""
        return self.input_size // self.patch_size


class VitPolicy(Policy):
    """A policy whose image is encoded by a ViT without class token."""

    config: EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config.patch_size, config.width)
        self.position_embedding = position_embedding(
            config, rows=config.grid_size, columns=config.grid_size
        )
        self.encoder = Encoder(
            depth=config.encoder_depth,
            width=config.width,
            num_heads=config.num_heads,
            mlp_width=config.mlp_width,
        )

    @classmethod
    def fresh(cls, sizes: Mapping[str, Any]) -> Self:
        """Values as published, but for learned positions: they begin with near places alike."""
        policy = cls(EncoderDecoderConfig.model_validate(sizes))
        policy.start_positions()
        return policy

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Self:
        sizes = EncoderDecoderConfig.model_validate(config)
        with sizes_only():
            return cls(sizes)

    @torch.no_grad()
    def start_positions(self) -> None:
        """Learned ones begin with near ones alike; fixed ones stay."""
        if self.config.position_embedding == "learned":
            begun = patches_alike(self.config.grid_size, self.config.width)
            self.position_embedding.copy_(begun)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def sequence_length(self) -> int:
        return self.config.sequence_length

    @property
    def framing(self) -> Framing:
        return Square(side=self.config.input_size)

    def encode(self, images_GHWC: Tensor, *, recompute: bool = False) -> Tensor:
        """Images in [-1, 1] to context [G, P, D]."""
        # Pictures come as float32, also to a sampler whose weights are bfloat16.
        images_GHWC = images_GHWC.to(self.patch_embedding.kernel.dtype)
        x_GPD = self.patch_embedding.forward(images_GHWC) + self.position_embedding
        return self.encoder.forward(x_GPD, recompute=recompute)


def position_embedding(config: EncoderDecoderConfig, *, rows: int, columns: int) -> Tensor:
    """Of the config's kind: fixed and no parameter, or learned."""
    if config.position_embedding == "sincos2d":
        return nn.Buffer(sincos2d(rows, columns, config.width), persistent=False)
    learned = torch.empty(1, rows * columns, config.width)
    return nn.Parameter(learned.normal_(std=1 / math.sqrt(config.width)))
