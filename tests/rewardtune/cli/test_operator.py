"""The operator's commands as they are typed, against a real Control and a driver that remembers."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from rewardtune.cli import operator as operator_commands
from rewardtune.cli.app import app
from rewardtune.cli.operator import add_operator_commands
from rewardtune.cluster.control.client import Refused
from rewardtune.cluster.control.record import DRIVER_NAME, NotLive
from rewardtune.cluster.control.server import ControlServer
from rewardtune.config.run_config import ConfigError
from rewardtune.evaluation.history import HISTORY_NAME
from rewardtune.run.run_state import STATE_NAME, RunStateFile
from rewardtune.run.summary import NoRun
from tests.rewardtune.steered import NOT_BEGUN, STATUS, FakeDriver, letter
from tests.rewardtune.tiny_run import tiny_config

GUIDE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
APP = typer.Typer()
add_operator_commands(APP)


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "150"}).invoke(APP, [str(argument) for argument in arguments])


def shown(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a run of 6 steps of 8 groups whose driver is not there."""
    path = tmp_path / "tuned"
    path.mkdir()
    config = tiny_config(tmp_path / "data", path)
    (path / "config.json").write_text(config.model_dump_json())
    return path


@pytest.fixture
def driver(directory: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver()
    with ControlServer(driver, directory=directory, host="127.0.0.1"):
        yield driver


def write_checkpoint(directory: Path, step: int, **ledger: Any) -> None:
    folder = directory / "checkpoints" / f"checkpoint-{step:08d}"
    folder.mkdir(parents=True)
    known = {"batch_size": 8, "num_batches": step, "invalid": [], "skipped": []}
    (folder / "state.json").write_text(json.dumps({"ledger": {**known, **ledger}}))
    (folder / "manifest.json").write_text("{}")


def test_status_shows_a_live_run(directory: Path, driver: FakeDriver) -> None:
    text = shown("status", directory)
    for words in [
        "tuned running",
        "5/30",
        "2 steps/s",
        "learn 67% · wait 33%",
        "1 (depth 1, 2 required)",
        "5 waiting · 2 leased · 1 scored · oldest 1.5 s",
        "1 ready · 3 required",
        "step 4 · map 0.5000",
    ]:
        assert words in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["learner"] == ["learner", "11", "busy", "1"]
    assert lines["sampler-0"] == ["sampler-0", "-", "starting", "0"]
    assert lines["host-7-abc"] == ["host-7-abc", "outside", "ready", "1/2", "10", "0.250"]


def test_status_shows_a_run_that_has_not_begun(directory: Path, driver: FakeDriver) -> None:
    driver.now = NOT_BEGUN
    assert "starting" in shown("status", directory)


def test_status_for_programs_is_the_drivers_own(directory: Path, driver: FakeDriver) -> None:
    assert json.loads(shown("status", directory, "--json")) == STATUS


def test_status_of_a_run_that_rests_is_what_its_directory_tells(directory: Path) -> None:
    assert "not live  no checkpoint yet of 6" in shown("status", directory)
    write_checkpoint(directory, 4)
    (directory / "checkpoints" / "checkpoint-00000005").mkdir()  # it was being written
    evaluations = [{"step": 0, "map": 0.25}, {"step": 2, "map": 0.5}, {"step": 4, "map": 0.375}]
    (directory / HISTORY_NAME).write_text(json.dumps(evaluations))
    text = shown("status", directory)
    assert "not live  checkpoint at step 4 of 6" in text
    assert "best   step 2 · map 0.5000" in text and "latest step 4 · map 0.3750" in text
    told = json.loads(shown("status", directory, "--json"))
    assert (told["state"], told["checkpoint_step"], told["is_finished"]) == ("not_live", 4, False)
    write_checkpoint(directory, 6)
    (directory / "policy.safetensors").touch()
    assert "finished" in shown("status", directory)


@pytest.mark.parametrize(
    ("error", "shown_state", "advice"),
    [
        (None, "drained  checkpoint at step 4 of 6", "continues it from there"),
        (ConfigError("no such data"), "refused  checkpoint at step 4 of 6", "mend that"),
        (RuntimeError("out of memory"), "failed  checkpoint at step 4 of 6", "continues it"),
    ],
)
def test_status_tells_how_a_run_ended_when_its_driver_is_gone(
    directory: Path, error: Exception | None, shown_state: str, advice: str
) -> None:
    write_checkpoint(directory, 4)
    told = RunStateFile(directory, num_steps=6)
    if error is None:
        told.ended(step=4)
    else:
        told.ended_by(error)
    text = shown("status", directory)
    assert shown_state in text and advice in text and str(error or "") in text
    as_json = json.loads(shown("status", directory, "--json"))
    assert as_json["state"] == shown_state.split()[0] and as_json["checkpoint_step"] == 4
    assert as_json["why"] == str(error or "")


def test_status_of_a_run_that_was_refused_before_there_was_one(tmp_path: Path) -> None:
    RunStateFile(tmp_path, num_steps=0).ended_by(ConfigError("unknown key learner.stepz"))
    text = shown("status", tmp_path)
    assert "refused  no checkpoint yet\nunknown key learner.stepz" in text
    assert json.loads(shown("status", tmp_path, "--json"))["state"] == "refused"


def test_status_knows_a_process_that_died_from_one_that_runs(directory: Path) -> None:
    RunStateFile(directory, num_steps=6).tell("running", step=3)
    assert f"running  no checkpoint yet of 6\nstep 3 of 6, on {socket.gethostname()}" in shown(
        "status", directory
    )
    path = directory / STATE_NAME
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": gone.pid}))
    text = shown("status", directory)
    assert f"not live  no checkpoint yet of 6\nits process {gone.pid} died at step 3 of 6" in text
    assert json.loads(shown("status", directory, "--json"))["state"] == "not_live"


def test_watching_ends_with_the_run(
    directory: Path, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator_commands, "WATCH_SECONDS", 0.0)
    shows = iter([STATUS, {**STATUS, "step": 9}])

    def status() -> dict[str, Any]:
        now = next(shows)
        if now["step"] == 9:
            (directory / DRIVER_NAME).unlink()
        return now

    driver.status = status  # type: ignore[method-assign]
    text = shown("status", directory, "--watch")
    assert "9/30" in text and text.rstrip().endswith("continues it from there")


def test_commands_tell_the_driver(directory: Path, driver: FakeDriver) -> None:
    for command in ("pause", "resume", "checkpoint", "drain"):
        assert str(directory) in shown(command, directory)
    assert "3 reward workers inside Ray, 2 before" in shown(
        "scale", "reward-workers", 3, "--run", directory
    )
    told = [("pause", True), ("pause", False), "checkpoint", "drain", ("scale", 3)]
    assert driver.told == told


def test_a_machine_that_goes_away_takes_its_own_driver_along_and_no_other(
    directory: Path, driver: FakeDriver
) -> None:
    shown("drain", directory, "--for-restart")
    assert driver.told == ["drain for restart"]
    path = directory / DRIVER_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "successor"}))
    refusal = run("drain", directory, "--for-restart").exception
    assert isinstance(refusal, NotLive) and "is on successor" in str(refusal)
    assert driver.told == ["drain for restart"]


def test_drain_can_wait_for_the_end(directory: Path, driver: FakeDriver) -> None:
    told = RunStateFile(directory, num_steps=6)

    def drain(*, for_restart: bool = False) -> None:
        told.ended(step=4)
        (directory / DRIVER_NAME).unlink()

    driver.drain = drain  # type: ignore[method-assign]
    assert shown("drain", directory, "--wait").endswith("drained at step 4 of 6\n")


def test_a_refusal_is_the_commands_own(directory: Path, driver: FakeDriver) -> None:
    error = run("scale", "reward-workers", 9, "--run", directory).exception
    assert isinstance(error, Refused) and str(error) == "only 4 fit, got 9"


def test_dead_letters_are_listed(directory: Path, driver: FakeDriver) -> None:
    assert "no dead letters" in shown("dead-letters", directory)
    driver.letters = [letter(17)]
    text = shown("dead-letters", directory)
    assert "1 of 1 dead letters" in text and "exception: division by zero" in text
    (told,) = json.loads(shown("dead-letters", directory, "--json"))
    assert told["ordinal"] == 17


def test_a_group_is_explained(directory: Path, driver: FakeDriver) -> None:
    assert shown("explain", directory, 9) == (
        "group 9 of batch 1: leased: a reward worker has it\n"
    )


def test_a_group_of_a_run_that_rests_is_explained_by_its_checkpoint(directory: Path) -> None:
    write_checkpoint(directory, 2, invalid=[3], skipped=[8])

    def whereabouts(ordinal: int) -> str:
        found: str = json.loads(shown("explain", directory, ordinal, "--json"))["whereabouts"]
        return found

    expected = {0: "trained", 3: "invalid", 8: "skipped", 15: "trained", 16: "not_due"}
    assert {ordinal: whereabouts(ordinal) for ordinal in expected} == expected
    assert whereabouts(48) == "beyond_the_end"


@pytest.mark.parametrize("command", ["drain", "pause", "resume", "checkpoint", "dead-letters"])
def test_a_run_that_is_not_live_takes_no_command(directory: Path, command: str) -> None:
    error = run(command, directory).exception
    assert isinstance(error, NotLive) and "is not live" in str(error) and "\n" not in str(error)


def test_where_there_is_no_run_one_line_says_so(tmp_path: Path) -> None:
    error = run("status", tmp_path).exception
    assert isinstance(error, NoRun) and str(error).startswith(f"no run at {tmp_path}")


def test_a_run_can_be_given_by_its_name(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.rename(tmp_path / "moved")
    (tmp_path / "runs").mkdir()
    (tmp_path / "moved").rename(tmp_path / "runs" / "tuned")
    monkeypatch.chdir(tmp_path)
    assert "not live" in shown("status", "tuned")


def test_submit_wants_to_know_what() -> None:
    assert "submit needs one of" in str(run("submit").exception)
    assert "submit needs one of" in str(run("submit", "a.toml", "--stop", "b").exception)


COMMANDS = re.findall(r"^    (rewardtune .*)$|`(rewardtune [a-z-]+ RUN.*?)`", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("command", [block or inline for block, inline in COMMANDS])
def test_every_command_of_the_guide_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command)[1:]
    verbs = words[: 2 if words[0] == "scale" else 1]
    is_ours = words[0] not in ("tune", "reward-worker")
    result = CliRunner().invoke(APP if is_ours else app, [*verbs, "--help"])
    assert result.exit_code == 0
    for word in words:
        assert not word.startswith("--") or word in result.stdout
