"""What tests of whole runs start from, made once for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.run.local import pretrain
from tests.rewardtune.tiny_run import SILENT, tiny_config, write_tiny_digits


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of digits: ``train``, ``holdout`` and ``validation``."""
    return write_tiny_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy file of a likelihood run on ``data``."""
    directory = tmp_path_factory.mktemp("pretrained")
    return pretrain(tiny_config(data, directory), SILENT).policy_path
