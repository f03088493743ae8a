from __future__ import annotations

import socket
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from rewardtune.cli.reward_worker import reward_worker
from tests.reward_workers.scoring_run import write_tiny_data
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
