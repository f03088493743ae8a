"""A stage I that trains in seconds, on digit scenes of 32 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rewardtune.stage_one_config import StageOneRunConfig
from tasks.coco import convert_coco
from tasks.digit_files import write_digits
from tasks.digits import SceneStyle


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
            "input_size": 32,
            "patch_size": 8,
            "width": 32,
            "num_heads": 2,
            "mlp_width": 48,
            "encoder_depth": 1,
            "decoder_depth": 1,
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
        "compute": {"threads": 2, "device": "cpu"},
        "evaluation": {"every_steps": 2},
        "operations": {"directory": str(directory), "checkpoint_every": 2, "progress": False},
    }
    for key, change in changes.items():
        if isinstance(change, dict):
            values[key] = {**values.get(key, {}), **change}
        else:
            values[key] = change
    return StageOneRunConfig.model_validate_json(json.dumps(values), strict=True)
