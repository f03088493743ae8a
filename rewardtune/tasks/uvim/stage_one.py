"""The stage-I network: labels to codes, and codes with the image as context to pixels.

Axes: N pictures, H height, W width, T patches, C channels, P pixels of a patch, D width,
L codes of a picture, E width of a codeword. Labels are one tensor for each output of the config:
classes [N, H, W] of any integer type, or values [N, H, W, C] in [-1, 1].

Source: big_vision models/proj/uvim/vit.py; algorithm spec, section 7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers import Dense, Encoder, PatchEmbedding
from rewardtune.tasks.uvim.codebook import Codebook, standardised
from rewardtune.tasks.uvim.config import COLOUR, StageOneConfig
from rewardtune.tasks.uvim.patches import ClassEmbedding, PixelHead, ValueEmbedding


class LabelEncoder(nn.Module):
    """Labels and their image to one vector for each code [N, L, E]."""

    def __init__(self, config: StageOneConfig) -> None:
        super().__init__()
        self.config = config
        self.label_embeddings = nn.ModuleDict(
            {
                name: (ValueEmbedding if name == COLOUR else ClassEmbedding)(
                    channels, config.patch_size, config.width
                )
                for name, channels in config.outputs.items()
            }
        )
        self.context_embedding = PatchEmbedding(config.patch_size, config.width)
        self.position_embedding = _position_embedding(config)
        self.trunk = _trunk(config, depth=config.encoder_depth)
        self.bottleneck = _matrix(config, config.num_patches, config.code_length)
        self.head = Dense(config.width, config.codeword_width)

    def forward(self, labels: Mapping[str, Tensor], images_NHWC: Tensor) -> Tensor:
        embedded = [
            embedding(labels[name].to(images_NHWC.device))
            for name, embedding in self.label_embeddings.items()
        ]
        x_NTD = sum(embedded, self.context_embedding.forward(images_NHWC))
        x_NTD = self.trunk.forward(x_NTD + self.position_embedding)
        if self.bottleneck is None:
            side = self.config.code_side
            x_NLD = _resized(x_NTD, self.config.grid_size, side)
        else:
            x_NLD = (x_NTD.transpose(1, 2) @ self.bottleneck).transpose(1, 2)
        return standardised(self.head.forward(x_NLD))


class CodeDecoder(nn.Module):
    """Codewords [N, L, E] and the image's context to states [N, T, D], then to pixels."""

    def __init__(self, config: StageOneConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Dense(config.codeword_width, config.width)
        self.bottleneck = _matrix(config, config.code_length, config.num_patches)
        self.context_embedding = PatchEmbedding(config.patch_size, config.width)
        self.position_embedding = _position_embedding(config)
        self.trunk = _trunk(config, depth=config.decoder_depth)
        self.heads = nn.ModuleDict(
            {
                name: PixelHead(config.width, channels, config.patch_size)
                for name, channels in config.outputs.items()
            }
        )

    def context(self, images_NHWC: Tensor) -> Tensor:
        """What the decoder sees of each image [N, T, D]; the same for all codes of an image."""
        images_NHWC = images_NHWC.to(self.context_embedding.kernel.dtype)
        return self.context_embedding.forward(images_NHWC) + self.position_embedding

    def states(self, codeword_NLE: Tensor, context_NTD: Tensor) -> Tensor:
        """States [N, T, D] that the heads read; a context of one image serves all rows."""
        return self.trunk.forward(self.embedded(codeword_NLE, context_NTD))

    def embedded(self, codeword_NLE: Tensor, context_NTD: Tensor) -> Tensor:
        """What the trunk makes states of [N, T, D]."""
        x_NLD = self.stem.forward(codeword_NLE)
        if self.bottleneck is None:
            x_NTD = _resized(x_NLD, self.config.code_side, self.config.grid_size)
        else:
            x_NTD = (x_NLD.transpose(1, 2) @ self.bottleneck).transpose(1, 2)
        return x_NTD + context_NTD

    def forward(self, codeword_NLE: Tensor, context_NTD: Tensor) -> dict[str, Tensor]:
        """Logits, or values, [N, T, C, P] for each output."""
        state_NTD = self.states(codeword_NLE, context_NTD)
        return {name: head(state_NTD) for name, head in self.heads.items()}


class StageOne(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, config: StageOneConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = LabelEncoder(config)
        self.codebook = Codebook(config.dict_size, config.codeword_width)
        self.decoder = CodeDecoder(config)

    def encode(self, labels: Mapping[str, Tensor], images_NHWC: Tensor) -> Tensor:
        """Codes [N, L], int64, counted from 0."""
        return self.codebook.nearest(self.encoder.forward(labels, images_NHWC))

    def decode(self, code_NL: Tensor, images_NHWC: Tensor) -> dict[str, Tensor]:
        """Logits, or values, [N, T, C, P] for each output.

        Raises:
            ValueError: a code outside -1..dict_size-1.
        """
        codeword_NLE = self.codebook.lookup(code_NL)
        return self.decoder.forward(codeword_NLE, self.decoder.context(images_NHWC))


def _resized(x_NTD: Tensor, old_side: int, new_side: int) -> Tensor:
    """A grid of vectors resized as a picture: linear, with antialiasing where it shrinks."""
    if old_side == new_side:
        return x_NTD
    # In float32: torch has no antialiased resizing in less.
    grid = x_NTD.float().unflatten(1, (old_side, old_side)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(new_side, new_side), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).flatten(1, 2).to(x_NTD.dtype)


def _trunk(config: StageOneConfig, *, depth: int) -> Encoder:
    return Encoder(
        depth=depth, width=config.width, num_heads=config.num_heads, mlp_width=config.mlp_width
    )


def _position_embedding(config: StageOneConfig) -> nn.Parameter:
    learned = torch.empty(1, config.num_patches, config.width)
    return nn.Parameter(learned.normal_(std=1 / math.sqrt(config.width)))


def _matrix(config: StageOneConfig, num_in: int, num_out: int) -> nn.Parameter | None:
    if config.bottleneck == "resize":
        return None
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_in, num_out)))
