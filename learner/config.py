"""What the learner can be told. Reads without torch, as a config is checked before it is needed."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from learner.estimators.config import EstimatorConfig
from learner.schedule import ScheduleConfig

Dtype = Literal["float32", "bfloat16"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression for whole parameter names, slashes for dots: ``encoder/.*``."""


class _SharedConfig(BaseModel):
    """What surrounds the update rule."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: PositiveFloat
    """Peak step size. No default: it belongs to the checkpoint being tuned."""

    weight_decay: NonNegativeFloat = 0.0
    """Share of a weight taken off per step at schedule 1, whatever the learning rate."""

    grad_clip_norm: PositiveFloat | None = None
    """Gradients are scaled down to this global L2 norm where they exceed it."""

    learning_rate_multipliers: tuple[tuple[Pattern, PositiveFloat], ...] = ()
    """Of the first pattern that matches; 1 where none does."""

    weight_decay_multipliers: tuple[tuple[Pattern, NonNegativeFloat], ...] = ((".*/kernel", 1.0),)
    """Of the first pattern that matches; 0 where none does, so biases and embeddings are spared."""

    frozen: tuple[Pattern, ...] = ()
    """Parameters that stay as they are: no update, no decay, no part in the clipped norm."""


class AdafactorConfig(_SharedConfig):
    """The paper's optimizer; see ``learner.adafactor``."""

    kind: Literal["adafactor"] = "adafactor"

    beta2_cap: float = Field(default=0.999, ge=0.0, lt=1.0)
    """Upper limit of the second moment's decay. All UViM runs use 0.95."""

    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)

    momentum_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """How momentum is stored; it is computed in float32."""

    min_dim_size_to_factor: PositiveInt = 32

    clipping_threshold: PositiveFloat | None = None
    """Largest root mean square of one parameter's scaled gradient."""


class AdamWConfig(_SharedConfig):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980), debiased, with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"

    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)

    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)

    epsilon: PositiveFloat = 1e-8


OptimizerConfig = Annotated[AdafactorConfig | AdamWConfig, Field(discriminator="kind")]


class LearnerConfig(EstimatorConfig):
    """How weights follow from rewards, or from annotations in pretraining."""

    batch_size: PositiveInt
    """Images per step."""

    num_steps: PositiveInt

    micro_batch: PositiveInt
    """Images per backward pass. Part of the identity: sums are taken in its order."""

    gradient_shards: PositiveInt = 1
    """Partial gradients that are summed last, so that as many learners give the same bytes."""

    dtype: Dtype = "float32"
    """Of the matrix products; master weights are always float32."""

    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: slower, in less memory."""

    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % (self.micro_batch * self.gradient_shards):
            raise ValueError(
                f"learner.batch_size = {self.batch_size} is not a multiple of "
                f"learner.micro_batch * learner.gradient_shards = "
                f"{self.micro_batch} * {self.gradient_shards}"
            )
        return self
