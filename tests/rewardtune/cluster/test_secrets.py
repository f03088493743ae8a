"""A job on a Ray with a token and a Redis with a password: nowhere do the two show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewardtune.cluster.ray_token import settle_auth_mode
from rewardtune.cluster.submit import Cluster, ClusterAway
from tests.rewardtune.live_job import answers, live_client, wait_until
from tests.rewardtune.ray_head import RayHead, ray_head
from tests.rewardtune.small_job import small_job
from tests.rewardtune.transport.certificates import write_secret
from tests.rewardtune.transport.redis_server import RedisServer, redis_binaries, running

pytestmark = pytest.mark.slow

PASSWORD, TOKEN = "CANARY-of-redis-0123456789", "CANARY-of-ray-0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    with running(redis_binaries()["redis-6.2"], folder, password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def head(redis: RedisServer) -> Iterator[RayHead]:
    """Which alone knows the address of the queue, as the head's pod in deploy/kuberay does."""
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "REWARDTUNE_REDIS": redis.url}
    with ray_head(has_dashboard=True, environment=told) as head:
        wait_until(lambda: answers(f"{head.dashboard}/api/version"), head.log.read_text)
        yield head


def test_neither_password_nor_token_shows_anywhere(
    head: RayHead, redis: RedisServer, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(small_job(data, pretrained, num_steps=20, queue="env:REWARDTUNE_REDIS"))
    directory = tmp_path / "runs" / "mine"
    address = write_secret(tmp_path / "address", redis.url)
    outside = ("--run", "mine", "--data", data / "train", "--redis-file", address)
    worker, worker_log = started("reward-worker", *outside, folder=tmp_path)
    job, job_log = started("submit", config, "--address", head.dashboard, folder=tmp_path)
    try:
        client = live_client(directory, job_log.read_text)
        wait_until(lambda: client.status()["step"] >= 2, job_log.read_text)
        client.pause()
        wait_until(lambda: len(client.status()["reward_workers"]) == 2, worker_log.read_text)
        seen = [command_lines(), json.dumps(client.status())]
        seen += [asked(f"{head.dashboard}{page}") for page in ("/api/jobs/", "/api/v0/actors")]
        assert "env:REWARDTUNE_REDIS" in (directory / "config.json").read_text()
        seen += list(shown_by_metrics(directory))
        client.resume()
        assert job.wait(timeout=90) == 0, job_log.read_text()
    finally:
        job.kill()
        job.wait()
        worker.terminate()
        worker.wait(timeout=30)
    assert "reward-worker" in seen[0] and "rewardtune tune" in seen[2]
    for text in (*seen, job_log.read_text(), worker_log.read_text()):
        assert "CANARY" not in text, around(text)
    files = [*files_below(directory), *files_below(head.folder)]
    assert len(files) > 40
    assert [path for path in files if b"CANARY" in path.read_bytes()] == []


def test_without_the_token_a_job_is_refused_in_one_line(
    head: RayHead, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process has settled for no token, before Ray was imported.
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(ClusterAway, match="RAY_AUTH_TOKEN") as refused:
        Cluster.at(head.dashboard)
    assert "\n" not in str(refused.value)


def test_another_token_is_refused_in_one_line(head: RayHead, tmp_path: Path) -> None:
    job, log = started(
        *("submit", "--address", head.dashboard, "--follow", "mine-1"),
        folder=tmp_path,
        token="CANARY-of-somebody-else-0123456789abcdef",
    )
    assert job.wait(timeout=60) != 0
    told = log.read_text().strip()
    assert "RAY_AUTH_TOKEN" in told and "CANARY" not in told
    assert len(told.splitlines()) == 1, told


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({}, "disabled"),
        ({"RAY_AUTH_TOKEN": "t"}, "token"),
        ({"RAY_AUTH_TOKEN_PATH": "/t"}, "token"),
        ({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"}, "disabled"),
    ],
)
def test_ray_is_asked_by_token_where_there_is_one(given: dict[str, str], mode: str) -> None:
    assert settle_auth_mode(given) == given["RAY_AUTH_MODE"] == mode


def started(
    *arguments: object, folder: Path, token: str = TOKEN
) -> tuple[subprocess.Popen[bytes], Path]:
    """A command as a user gives it, who says nothing of Ray's mode and has the token."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rewardtune", *map(str, arguments)],
            cwd=folder,
            env={**own, "RAY_AUTH_TOKEN": token},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return process, log


def command_lines() -> str:
    """Of every process there is, as ``ps`` shows them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return "\n".join(found)


def asked(url: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def shown_by_metrics(directory: Path) -> Iterator[str]:
    """/sd and every page that it lists."""
    told = re.search(r"http://[\d.:]+/sd", (directory / "log.jsonl").read_text())
    assert told is not None
    with urllib.request.urlopen(told[0], timeout=20) as answer:
        listed = answer.read().decode()
    yield listed
    for entry in json.loads(listed):
        for target in entry["targets"]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
                yield answer.read().decode()


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def around(text: str) -> str:
    place = text.index("CANARY")
    return text[max(0, place - 200) : place + 100]
