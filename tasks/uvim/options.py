"""Options that panoptic segmentation and colorization share. Reads without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

Options = TypeVar("Options", bound="StageOneOptions")


class StageOneOptions(BaseModel):
    """Which stage I the tokens belong to, and how it decodes; part of a run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stage_one: Path
    """A stage-I file, as ``rewardtune pretrain`` and ``import-checkpoint`` write it."""

    decode_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the decoder's blocks; its heads are always float32."""

    decode_batch: PositiveInt = 1
    """Sequences decoded together; fewer are filled up, so that bits do not depend on how many."""

    decode_threads: PositiveInt = 1
    """Threads of one decoding, whatever else the process does."""


def read_options(model: type[Options], options: Mapping[str, Any], *, task: str) -> Options:
    """Validate a task's options.

    Raises:
        ValueError: one line with key, value and what would be valid.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise ValueError(
                f"unknown {task} option '{key}' = {problem['input']!r}: valid options are "
                f"{', '.join(model.model_fields)}"
            ) from None
        if problem["type"] == "missing":
            raise ValueError(f"{task} option '{key}' is missing: set task_options.{key}") from None
        raise ValueError(
            f"{task} option '{key}' = {problem['input']!r}: {problem['msg']}"
        ) from None


def stage_one_artefact(options: Mapping[str, Any]) -> dict[str, Path]:
    """The file that the options name, for ``tasks.task``'s ``artefacts`` hook."""
    return {"stage_one": Path(options["stage_one"])} if "stage_one" in options else {}
