from __future__ import annotations

import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rewardtune.cli.reward_worker import reward_worker
from tests.reward_workers.scoring_run import write_tiny_data
from tests.rewardtune.transport.certificates import write_secret
from tests.rewardtune.transport.redis_server import redis_binaries, running


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(reward_worker)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")


def test_an_address_where_nobody_listens_is_named(data: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}"
        result = run("--queue", url, "--run", "test", "--data", data)
    assert isinstance(result.exception, ConnectionError)
    assert url.removeprefix("redis://") in str(result.exception)


def test_a_wrong_password_is_bad_input(data: Path, tmp_path: Path) -> None:
    with running(redis_binaries()["redis-6.2"], tmp_path, password="right") as server:
        url = server.url.replace("right", "wrong")
        result = run("--queue", url, "--run", "test", "--data", data)
    assert isinstance(result.exception, ValueError)
    assert "password" in str(result.exception) and "wrong" not in str(result.exception)


def test_a_queue_of_no_known_kind_is_bad_input(data: Path) -> None:
    result = run("--queue", "http://host", "--run", "test", "--data", data)
    assert isinstance(result.exception, ValueError)


def test_the_address_comes_from_the_environment_or_a_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REWARDTUNE_REDIS", raising=False)
    nowhere = "redis://:CANARY@127.0.0.1:1"
    result = run("--run", "test", "--data", data)
    assert isinstance(result.exception, ValueError)
    assert "set REWARDTUNE_REDIS, or give --queue or --redis-file" in str(result.exception)
    file = write_secret(tmp_path / "address", nowhere)
    results = [run("--run", "test", "--data", data, "--redis-file", file)]
    monkeypatch.setenv("REWARDTUNE_REDIS", nowhere)
    results.append(run("--run", "test", "--data", data))
    for result in results:
        assert "no answer from Redis at redis://127.0.0.1:1" in str(result.exception)
        assert "CANARY" not in f"{result.exception} {result.output}"
    file.chmod(0o644)
    result = run("--run", "test", "--data", data, "--redis-file", file)
    assert "chmod 600" in str(result.exception)
    result = run("--run", "test", "--data", data, "--redis-file", file, "--queue", "redis://h")
    assert "give one of them" in str(result.exception)


@pytest.mark.parametrize("option", ["--metrics-port", "--health-port"])
def test_ports_go_to_65535(data: Path, option: str) -> None:
    result = run("--queue", "redis://127.0.0.1:1", "--run", "r", "--data", data, option, 70_000)
    assert result.exit_code == 2 and "65535" in result.output
