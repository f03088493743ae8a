"""A stage I that trains in seconds, on digit scenes of 32 pixels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.run.local import tune
from rewardtune.stage_one.config import StageOneRunConfig
from tests.rewardtune.tiny_run import SILENT, SIZES, merged, tiny_tune, weight_digest


def write_panoptic_digits(output: Path) -> Path:
    """Digit scenes with panoptic maps, as data sets ``output/train`` and ``output/holdout``."""
    scenes = output / "scenes"
    style = SceneStyle(size=32, min_digits=1, max_digits=2)
    write_digits(scenes, num_scenes={"train": 24, "holdout": 6}, style=style)
    for split in ("train", "holdout"):
        coco = scenes / "coco" / split
        convert_coco(images=coco / "images", panoptic=coco / "panoptic.json", output=output / split)
    return output


def tiny_stage_one(data: Path, directory: Path, **changes: Any) -> StageOneRunConfig:
    """``changes`` are sections or top-level keys, merged one level deep."""
    values: dict[str, Any] = {
        "task": "panoptic",
        "mode": "stage_one",
        "seed": 3,
        "data": {"train": str(data / "train"), "holdout": str(data / "holdout")},
        "network": {
            **SIZES,
            "code_length": 4,
            "dict_size": 16,
            "codeword_width": 8,
            "num_instances": 8,
        },
        "training": {
            "batch_size": 8,
            "micro_batch": 4,
            "num_steps": 4,
            "optimizer": {"kind": "adafactor", "learning_rate": 1e-2, "beta2_cap": 0.95},
            "dictionary_momentum": 0.9,
            "min_count": 1.0,
        },
        "compute": {"threads": 1, "device": "cpu"},
        "evaluation": {"every_steps": 2},
        "operations": {"directory": str(directory), "checkpoint_every": 2, "progress": False},
    }
    return StageOneRunConfig.model_validate_json(json.dumps(merged(values, changes)), strict=True)


def check_that_tuning_repeats(
    data: Path, stage_one: Path, policy: Path, directory: Path, *, task: str
) -> None:
    """Tune a policy of stage I's codes for two steps, twice: the same bytes, and not the old."""
    digests = []
    for name in ("first", "second"):
        config = tiny_tune(
            data, policy, directory / name, task=task, learner={"num_steps": 2}
        ).model_copy(update={"task_options": {"stage_one": str(stage_one), "decode_batch": 4}})
        assert math.isfinite(tune(config, SILENT).metrics["reward"])
        digests.append(weight_digest(directory / name / "policy.safetensors"))
    assert digests[0] == digests[1] != weight_digest(policy)
