"""What the training of a stage I can be told: a TOML file with ``mode = "stage_one"``."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationError, model_validator

from learner.config import OptimizerConfig
from learner.schedule import ScheduleConfig
from rewardtune.config.config_file import read_values
from rewardtune.config.run_config import (
    ComputeConfig,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    OperationsConfig,
    Section,
)
from rewardtune.shipped import find_config
from rewardtune.tasks.uvim.config import COLOUR, INSTANCES, SEMANTICS, StageOneConfig

MODE = "stage_one"


class NetworkConfig(Section):
    """Sizes of the network; how many classes it tells apart is the data's to say."""

    input_size: PositiveInt
    patch_size: PositiveInt
    width: PositiveInt
    num_heads: PositiveInt
    mlp_width: PositiveInt
    encoder_depth: PositiveInt
    decoder_depth: PositiveInt
    code_length: PositiveInt
    dict_size: PositiveInt
    codeword_width: PositiveInt
    bottleneck: Literal["resize", "matrix"] = "resize"

    num_instances: PositiveInt = 100
    """Instance ids of a panoptic stage I, 0 included; segments beyond them are not learned."""

    def sizes(self, task: Literal["panoptic", "colorization"], num_classes: int) -> StageOneConfig:
        """All sizes, for data of so many classes."""
        panoptic = {SEMANTICS: num_classes + 1, INSTANCES: self.num_instances}
        return StageOneConfig(
            outputs=panoptic if task == "panoptic" else {COLOUR: 3},
            **self.model_dump(exclude={"num_instances"}),
        )


class TrainingConfig(Section):
    """How weights and codebook follow from labels."""

    batch_size: PositiveInt
    """Pictures per step."""

    micro_batch: PositiveInt
    """Pictures per backward pass. Part of the identity: sums are taken in its order."""

    num_steps: PositiveInt

    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products; master weights are always float32."""

    code_dropout: Literal["random", "ordered", "none"] = "random"
    """Which codes are dropped in training: of each picture a random share, or its last ones."""

    commitment_weight: NonNegativeFloat = 0.0
    """Of the distance between the encoder's vectors and their codewords."""

    dictionary_momentum: float = Field(default=0.995, ge=0.0, lt=1.0)

    min_count: NonNegativeFloat = 0.1
    """Codewords whose running count falls below are revived."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"training.batch_size = {self.batch_size} is not a multiple of "
                f"training.micro_batch = {self.micro_batch}"
            )
        return self


class StageOneRunConfig(Section):
    """One training run of a stage I. Built once, logged whole, never mutated."""

    task: Literal["panoptic", "colorization"]
    mode: Literal["stage_one"]
    seed: int = Field(default=0, ge=0, lt=2**63)
    data: DataConfig
    network: NetworkConfig
    training: TrainingConfig
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    operations: OperationsConfig = OperationsConfig()

    def identity(self) -> dict[str, Any]:
        """What the final weights depend on, as plain JSON values."""
        values = self.model_dump(mode="json", exclude={"operations", "evaluation"})
        for key in ("train", "holdout", "validation"):
            del values["data"][key]
        return values

    def identity_hash(self) -> str:
        """Hex SHA-256 of the identity's canonical JSON."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def is_stage_one(path: Path) -> bool:
    """Whether a config trains a stage I; a file that cannot be read does not."""
    try:
        return tomllib.loads(find_config(path).read_text(encoding="utf-8")).get("mode") == MODE
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def load_stage_one_config(path: Path, overrides: Sequence[str] = ()) -> StageOneRunConfig:
    """Read one run; see ``config_file.load_config``.

    Raises:
        ConfigError: the file, an override or a combination cannot be run.
    """
    values = read_values(path, overrides)
    try:
        return StageOneRunConfig.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problem = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        key = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        what = "unknown key " if problem["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {what}{key}: {message}") from error
