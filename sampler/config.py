"""What a sampler can be told."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Dtype = Literal["float32", "bfloat16"]


class SamplerConfig(BaseModel):
    """How rollouts are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_samples: int = Field(default=2, ge=1)
    """Rollouts drawn per image."""

    micro_batch: PositiveInt = 16
    """Groups drawn together. Part of the identity: the shape of a batch moves bits."""

    temperature: float = Field(default=1.0, ge=0.001, le=1000)
    """Divides the logits, of which nothing is left beyond these limits. The distribution that this
    gives is the one whose reward is raised: below 1 it is nearer to greedy decoding, which has the
    same mode at every temperature."""

    top_k: PositiveInt | None = None
    """Draw from so many tokens only; the gradient takes no notice, here and of ``top_p``."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _cuts_once(self) -> Self:
        if self.top_k is not None and self.top_p is not None:
            raise ValueError(
                f"sampler.top_k = {self.top_k} and sampler.top_p = {self.top_p} exclude each "
                "other: set one of them"
            )
        return self
