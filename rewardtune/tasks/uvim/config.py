"""Sizes of a stage-I network; stored beside its weights. Reads without torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator

COLOUR = "color"
SEMANTICS = "semantics"
INSTANCES = "instances"


class StageOneConfig(BaseModel):
    """A ViT on both sides of a row of codes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_size: PositiveInt
    """Side of the square image and of its labels, in pixels."""
    patch_size: PositiveInt
    width: PositiveInt
    num_heads: PositiveInt
    mlp_width: PositiveInt
    encoder_depth: PositiveInt
    decoder_depth: PositiveInt

    code_length: PositiveInt
    """Codes of a picture; a square grid where the bottleneck resizes."""
    dict_size: PositiveInt
    codeword_width: PositiveInt

    outputs: dict[str, PositiveInt]
    """Channels of each label map: classes of "semantics" and "instances", void or unlabelled
    included, or the 3 of "color"."""

    bottleneck: Literal["resize", "matrix"] = "resize"
    """How patches become codes: as a picture is resized, or by a learned matrix."""

    @model_validator(mode="after")
    def _fits(self) -> StageOneConfig:
        if self.input_size % self.patch_size:
            raise ValueError(
                f"input_size {self.input_size} is no multiple of patch_size {self.patch_size}"
            )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} is no multiple of num_heads {self.num_heads}")
        if self.bottleneck == "resize" and self.code_side**2 != self.code_length:
            raise ValueError(
                f"code_length {self.code_length} is no square: bottleneck 'resize' needs one"
            )
        if set(self.outputs) not in ({COLOUR}, {SEMANTICS, INSTANCES}):
            raise ValueError(
                f"outputs {sorted(self.outputs)} are neither those of a panoptic stage I "
                f"({SEMANTICS}, {INSTANCES}) nor of one for colours ({COLOUR})"
            )
        if self.outputs.get(COLOUR, 3) != 3:
            raise ValueError(f"outputs.{COLOUR} must be 3, got {self.outputs[COLOUR]}")
        return self

    @property
    def kind(self) -> Literal["panoptic", "colorization"]:
        """The task whose labels it encodes."""
        return "colorization" if COLOUR in self.outputs else "panoptic"

    @property
    def grid_size(self) -> int:
        """Patches along one side."""
        return self.input_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_size**2

    @property
    def code_side(self) -> int:
        """Codes along one side, where they are a grid."""
        return math.isqrt(self.code_length)
