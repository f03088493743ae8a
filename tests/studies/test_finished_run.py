"""What a benchmark measures is a whole run, or nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

import studies.finished_run
from rewardtune.run.log import CombinedLog
from studies.finished_run import finished_run
from tests.rewardtune.tiny_run import SILENT, tiny_config, write_tiny_digits


class StopsAfterOneStep(CombinedLog):
    def step(self, record: Mapping[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.alone
def test_a_run_that_a_signal_stopped_is_not_taken_for_whole_and_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(write_tiny_digits(tmp_path / "digits"), tmp_path / "run")
    monkeypatch.setattr(studies.finished_run, "open_run_log", lambda *_: StopsAfterOneStep([]))
    with pytest.raises(SystemExit, match="was stopped"):
        finished_run(config)
    monkeypatch.setattr(studies.finished_run, "open_run_log", lambda *_: SILENT)
    assert finished_run(config).is_finished
