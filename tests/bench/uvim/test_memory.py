"""Real processes that read one stage-I file hold one copy of it together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.uvim.memory import held
from rewardtune.tasks.uvim.stage_one_file import save_stage_one
from tests.rewardtune.tasks.uvim.small import random_stage_one


def test_two_processes_hold_half_of_the_file_each(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save_stage_one(path, random_stage_one("panoptic"), class_names=None, provenance={})
    (alone,) = held(path, 1)
    assert alone == pytest.approx(path.stat().st_size / 2**20, rel=0.1)
    assert held(path, 2) == pytest.approx([alone / 2] * 2, rel=0.05)
