from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rewardtune.run.log import (
    LOG_NAME,
    TENSORBOARD_NAME,
    CombinedLog,
    JsonLinesLog,
    TensorBoardLog,
    open_run_log,
    read_run_log,
)
from tests.rewardtune.tiny_run import tiny_config


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_event_is_one_line_at_once(tmp_path: Path) -> None:
    log = JsonLinesLog(tmp_path / "run" / LOG_NAME)
    assert not (tmp_path / "run").exists(), "nothing to say yet"
    log.step({"step": 1.0, "reward": 2.5})
    log.evaluation(1, {"map": 0.5})
    log.message('a "word"')
    assert lines(tmp_path / "run" / LOG_NAME) == [
        {"kind": "step", "step": 1, "reward": 2.5},
        {"kind": "evaluation", "step": 1, "map": 0.5},
        {"kind": "message", "text": 'a "word"'},
    ]
    log.close()


def test_a_resumed_run_appends_and_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / LOG_NAME
    first = JsonLinesLog(path)
    for step in (1, 2, 3):
        first.step({"step": step, "reward": step})
    first.evaluation(3, {"map": 0.1})
    first.close()
    resumed = JsonLinesLog(path)
    for step in (3, 4):
        resumed.step({"step": step, "reward": 10 * step})
    resumed.evaluation(3, {"map": 0.2})
    resumed.close()
    assert len(lines(path)) == 7
    records = read_run_log(path)
    assert [(r["step"], r["reward"]) for r in records.steps] == [(1, 1), (2, 2), (3, 30), (4, 40)]
    assert records.evaluations == [{"step": 3, "map": 0.2}]


def test_a_line_cut_off_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / LOG_NAME
    path.write_text('{"kind": "step", "step": 1, "reward": 1.0}\n{"kind": "step", "st')
    log = JsonLinesLog(path)
    log.step({"step": 2, "reward": 2.0})
    log.close()
    assert [record["step"] for record in read_run_log(path).steps] == [1, 2]


def test_numbers_that_are_not_finite_stay_json(tmp_path: Path) -> None:
    log = JsonLinesLog(tmp_path / LOG_NAME)
    log.step({"step": 1, "loss": float("nan"), "grad_norm": float("inf")})
    log.close()
    assert lines(tmp_path / LOG_NAME) == [
        {"kind": "step", "step": 1, "loss": None, "grad_norm": None}
    ]


def test_tensorboard_shows_a_resumed_step_once(tmp_path: Path) -> None:
    for start, reward in ((1, 1.0), (2, 5.0)):
        log = TensorBoardLog(tmp_path)
        for step in range(start, 4):
            log.step({"step": step, "reward": reward, "seconds_learn": 0.5})
        log.evaluation(3, {"map": reward / 10})
        log.message("not a curve")
        log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/reward")] == [
        (1, 1.0),
        (2, 5.0),
        (3, 5.0),
    ]
    assert [e.value for e in events.Scalars("time/seconds_learn")] == [0.5, 0.5, 0.5]
    assert [e.value for e in events.Scalars("holdout/map")] == [0.5]


def test_the_logs_of_a_run_go_to_its_directory_and_the_console(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=60)
    config = tiny_config(tmp_path, tmp_path / "run")
    log = open_run_log(config, 2, console=console)
    assert not (tmp_path / "run").exists()
    log.step({"step": 1, "reward": 0.25})
    log.close()
    assert read_run_log(tmp_path / "run" / LOG_NAME).steps == [{"step": 1, "reward": 0.25}]
    assert len(list((tmp_path / "run" / TENSORBOARD_NAME).iterdir())) == 1
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == "pretrain 1/2 · reward 0.250\n"


def test_all_logs_are_closed_even_if_one_cannot_be() -> None:
    class Log(CombinedLog):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    class Full(CombinedLog):
        def close(self) -> None:
            raise OSError("No space left on device")

    first, last = Log([]), Log([])
    with pytest.raises(OSError, match="No space"):
        CombinedLog([first, Full([]), last]).close()
    assert first.is_closed and last.is_closed
