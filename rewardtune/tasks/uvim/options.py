"""Options that panoptic segmentation and colorization share. Reads without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt


class StageOneOptions(BaseModel):
    """Which stage I the tokens belong to, and how it decodes; part of a run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage_one: Path
    """A stage-I file, as ``rewardtune pretrain`` and ``import-checkpoint`` write it."""

    decode_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the decoder's blocks and of the products for instance ids; classes and colours are always
    float32."""

    decode_batch: PositiveInt = 1
    """Sequences decoded together; fewer are filled up, so that bits do not depend on how many."""

    decode_threads: PositiveInt = 1
    """Threads of one decoding, whatever else the process does."""


def stage_one_artefact(options: Mapping[str, Any]) -> dict[str, Path]:
    """The file that the options name, for ``rewardtune.tasks.task``'s ``artefacts`` hook."""
    return {"stage_one": Path(options["stage_one"])} if "stage_one" in options else {}
