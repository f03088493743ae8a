"""What a config knows of an estimator, against the estimator itself."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import get_args

import pytest
import torch

from learner.estimators.config import CHOICES, EstimatorConfig, EstimatorName

NAMES: tuple[EstimatorName, ...] = get_args(EstimatorName)


def test_every_name_has_a_choice() -> None:
    assert tuple(CHOICES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_as_many_rollouts_are_trained_on_as_the_config_says(name: EstimatorName) -> None:
    config = EstimatorConfig(estimator=name)
    module, kind = CHOICES[name].place
    estimator = getattr(importlib.import_module(module), kind)(config, weighs_importance=False)
    for num_samples in (2, 5):
        advantage_GRP = estimator.advantages(torch.rand(3, num_samples, 4))
        assert advantage_GRP.shape == (3, config.num_trained(num_samples), 4)


def test_a_config_is_checked_before_torch_is_loaded() -> None:
    program = "import sys, learner.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
