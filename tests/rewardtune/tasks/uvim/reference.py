"""A published stage I with random weights, and what the reference makes of its inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.tasks.uvim.big_vision import import_stage_one
from rewardtune.tasks.uvim.stage_one import StageOne

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures"
CODE_LENGTH = 4
KINDS = ("stage1_panoptic", "stage1_color")


def path(name: str) -> Path:
    return FIXTURES / f"{name}.npz"


def arrays(name: str) -> dict[str, NDArray[Any]]:
    with np.load(path(name)) as stored:
        return dict(stored)


def network(name: str) -> StageOne:
    return import_stage_one(path(name), code_length=CODE_LENGTH)


def labels(stored: dict[str, NDArray[Any]]) -> dict[str, Tensor]:
    """The labels of a fixture by output."""
    given = torch.from_numpy(stored["in/labels"])
    if given.shape[-1] == 3:
        return {"color": given}
    return {"semantics": given[..., 0], "instances": given[..., 1]}
