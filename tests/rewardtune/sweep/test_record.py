from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from rewardtune.config.run_config import ConfigError
from rewardtune.sweep.record import (
    RECORDS_NAME,
    append_record,
    finished_runs,
    missing_runs,
    read_records,
)
from tests.rewardtune.sweep_world import GROUPS, load, record


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    written = [record(sweep, "equal_steps/one", seed, 0.1 * seed) for seed in range(3)]
    path = tmp_path / "deep" / RECORDS_NAME
    for each in written:
        append_record(path, each)
    assert read_records(path) == written
    assert all(isinstance(json.loads(line), dict) for line in path.read_text().splitlines())
    assert read_records(tmp_path / "none.jsonl") == []


def test_a_figure_that_is_not_a_number_is_null_in_the_file(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    path = tmp_path / RECORDS_NAME
    append_record(path, replace(record(sweep, "equal_steps/one", 0, 0.5), after={"map": math.nan}))
    assert "NaN" not in path.read_text()
    (read,) = read_records(path)
    assert math.isnan(read.value("map")) and math.isnan(read.value("ar100"))


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    sweep = load(tmp_path, GROUPS)
    path = tmp_path / RECORDS_NAME
    written = [record(sweep, "equal_steps/one", seed, 0.5) for seed in range(2)]
    append_record(path, written[0])
    with path.open("a") as file:
        file.write('{"row": "equal_steps/o')
    append_record(path, written[1])
    assert read_records(path) == written


def test_another_file_in_its_place_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / RECORDS_NAME
    path.write_text('{"step": 3}\n')
    with pytest.raises(ConfigError, match=r"records\.jsonl, line 1 is not a run of a sweep"):
        read_records(path)


def test_records_of_other_settings_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = load(tmp_path, GROUPS)
    for row in sweep.distinct:
        append_record(sweep.directory / RECORDS_NAME, record(sweep, row, 0, 0.5))
    assert len(finished_runs(sweep)) == 3 and len(missing_runs(sweep, finished_runs(sweep))) == 3
    longer = load(tmp_path, GROUPS.replace("num_steps=6", "num_steps=7"))
    with pytest.raises(ConfigError, match="row 'equal_samples/one' under other settings"):
        finished_runs(longer)
    fewer = load(tmp_path, '[rows.equal_steps]\none = ["sampler.num_samples=2"]\n')
    assert [run.name for run in finished_runs(fewer)] == ["equal_steps/one/0"]
    best = load(tmp_path, 'policy = "best"\n' + GROUPS)
    with pytest.raises(ConfigError, match="under other settings"):
        finished_runs(best)
