"""A detector that runs in a second: sizes, data and configs shared by the tests of whole runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewardtune.config.config_file import parse_config
from rewardtune.config.run_config import RunConfig
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.run.log import CombinedLog

SILENT = CombinedLog([])

SIZES = {
    "input_size": 32,
    "patch_size": 8,
    "width": 32,
    "num_heads": 2,
    "mlp_width": 48,
    "encoder_depth": 1,
    "decoder_depth": 1,
}
"""Of a network that sees the digits' 32 pixels."""


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with changes: a section's keys one by one, anything else as a whole."""
    return {
        **values,
        **{
            key: {**values.get(key, {}), **change} if isinstance(change, dict) else change
            for key, change in changes.items()
        },
    }


def write_tiny_digits(output: Path) -> Path:
    write_digits(
        output,
        num_scenes={"train": 24, "holdout": 8, "validation": 8},
        style=SceneStyle(size=32, max_digits=3),
    )
    return output


def tiny_config(data: Path, directory: Path, **changes: Any) -> RunConfig:
    """A pretraining run; ``changes`` are sections or top-level keys, merged one level deep."""
    values: dict[str, Any] = {
        "task": "detection",
        "mode": "pretrain",
        "seed": 5,
        "task_options": {"max_boxes": 3},
        "data": {"train": str(data / "train"), "holdout": str(data / "holdout")},
        "policy": SIZES,
        "learner": {
            "batch_size": 8,
            "num_steps": 6,
            "micro_batch": 4,
            "optimizer": {"kind": "adafactor", "learning_rate": 1e-2},
        },
        # A second thread costs tensors of this size several times what it saves.
        "compute": {"threads": 1, "device": "cpu"},
        "operations": {"directory": str(directory), "checkpoint_every": 2, "progress": False},
    }
    return parse_config(merged(values, changes), source="test")


def tiny_tune(data: Path, checkpoint: Path, directory: Path, **changes: Any) -> RunConfig:
    sections: dict[str, Any] = {
        "mode": "tune",
        "policy": {"checkpoint": str(checkpoint)},
        "sampler": {"num_samples": 4, "micro_batch": 4},
        "learner": {"estimator": "leave_one_out"},
    }
    return tiny_config(data, directory, **merged(sections, changes))


def weight_digest(policy_path: Path) -> str:
    """Hash of a policy's weights alone; its file also records where they came from."""
    from rewardtune.policies.policy_file import load_policy

    digest = hashlib.sha256()
    for name, parameter in sorted(load_policy(policy_path).policy.named_parameters()):
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    return digest.hexdigest()
