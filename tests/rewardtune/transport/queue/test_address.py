"""Addresses of queues: where they stand, what is wrong with them, and that no password shows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from rewardtune.transport.queue.address import (
    check_url,
    find_url,
    has_password,
    redacted,
    refuse_password,
    without_password,
)
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import QueueRefused, QueueUnavailable
from rewardtune.transport.queue.redis_connection import own_errors
from tests.rewardtune.transport.certificates import write_secret
from tests.rewardtune.transport.redis_server import RedisServer, running

URL = "redis://learner:CANARY@127.0.0.1:6379/0"


def test_an_address_is_found_in_the_environment_in_a_file_and_in_itself(tmp_path: Path) -> None:
    file = write_secret(tmp_path / "redis", f"{URL}\n")
    assert find_url("env:HERE", environment={"HERE": URL}) == URL
    assert find_url(f"file:{file}") == URL
    assert find_url(URL) == URL


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("env:NOT_THERE", "NOT_THERE is not set for process"),
        ("env:", "needs the name of a variable"),
        ("env:a b", "needs the name of a variable"),
        ("file:/not/there", "cannot be read"),
    ],
)
def test_an_address_that_is_not_there_is_one_line(address: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        find_url(address, environment={})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_file_that_everybody_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    file = write_secret(tmp_path / "redis", URL)
    file.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600") as refused:
        find_url(f"file:{file}")
    assert "CANARY" not in str(refused.value)
    file.chmod(0o440)  # as Kubernetes mounts a Secret for a pod's group
    assert find_url(f"file:{file}") == URL


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://:CAN#ARY@127.0.0.1:1", "percent-encode"),
        ("redis://:p@CANARY:w/ord@127.0.0.1:1", "percent-encode"),
        ("redis://:CANARY[ss@127.0.0.1:1", "percent-encode"),
        ("rediss://u:CANARY?x@127.0.0.1:1", "percent-encode"),
        ("redis://:CANARY@127.0.0.1:99999", "1 to 65535"),
        ("redis://:CANARY@127.0.0.1:0", "1 to 65535"),
        ("redis://:CANARY@127.0.0.1:port", "1 to 65535"),
        ("redis://:CANARY@127.0.0.1:1/mydb", "a database is a number"),
        ("redis://:CANARY@127.0.0.1:1/0/1", "a database is a number"),
    ],
)
def test_a_malformed_address_is_one_line_without_its_password(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as refused:
        connect_queue(url, run="run", lease_seconds=1)
    assert "\n" not in str(refused.value) and "CANARY" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://:a%23b@127.0.0.1:6379/15",
        "rediss://u:pw@[::1]:6379/",
        "unix:///run/redis.sock?db=2",
        "unix://u:pw@/run/redis@home.sock",
        "ray://namespace/queue",
    ],
)
def test_a_good_address_is_taken(url: str) -> None:
    check_url(url)


def test_what_is_shown_has_no_login() -> None:
    assert without_password(URL) == "redis://127.0.0.1:6379/0"
    assert without_password("redis://h:1/0?password=CANARY") == "redis://h:1/0"
    assert without_password("redis://:a/b@CANARY@h:1") == "redis://h:1"
    told = redacted(f"x {URL} and 'rediss://:CAN/ARY@h' redis://h?password=CANARY")
    assert told == "x redis://...@127.0.0.1:6379/0 and 'rediss://...@h' redis://h?password=..."


@pytest.mark.parametrize("address", [URL, "rediss://:x@h", "redis://h/0?password=x"])
def test_a_password_is_refused_where_it_would_be_stored(address: str) -> None:
    with pytest.raises(ValueError, match="'env:REWARDTUNE_REDIS'") as refused:
        refuse_password(address, key="cluster.queue")
    assert "CANARY" not in str(refused.value)


@pytest.mark.parametrize("address", ["redis://worker@h:1", "env:X", "file:/a:b@c", "ray://a/b"])
def test_an_address_without_a_password_is_not(address: str) -> None:
    assert not has_password(address)


def test_what_an_address_names_is_not_shown_when_it_is_no_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTHER", "CANARY")
    with pytest.raises(ValueError, match="what env:OTHER holds names no job queue") as refused:
        connect_queue("env:OTHER", run="run", lease_seconds=1)
    assert "CANARY" not in str(refused.value)


def test_a_socket_is_an_address_too(redis_binary: str, tmp_path: Path) -> None:
    # A short path, since unix sockets may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rt-") as folder:
        socket = Path(folder) / "redis.sock"
        with running(redis_binary, tmp_path, users=[f"unixsocket {socket}"]):
            queue = connect_queue(f"unix://{socket}?db=1", run="run", lease_seconds=1)
            assert queue.term() is None
            queue.close()
    with pytest.raises(QueueUnavailable, match="unix:///not/there"):
        connect_queue("unix:///not/there", run="run", lease_seconds=1)


def test_a_database_that_is_not_there_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(QueueRefused, match="no such database") as refused:
        connect_queue(f"redis://127.0.0.1:{redis_server.port}/99", run="run", lease_seconds=1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("code", "means"),
    [
        ("MOVED 3999 127.0.0.1:1", QueueRefused),
        ("ASK 3999 127.0.0.1:1", QueueRefused),
        ("CROSSSLOT Keys in request don't hash to the same slot", QueueRefused),
        ("ERR unknown command 'EVALSHA'", QueueRefused),
        ("DENIED Redis is running in protected mode", QueueRefused),
        ("UNKILLABLE Sorry the script already executed write commands", QueueRefused),
        ("ERR DB index is out of range", QueueRefused),
        ("MASTERDOWN Link with MASTER is down", QueueUnavailable),
        ("CLUSTERDOWN Hash slot not served", QueueUnavailable),
        ("TRYAGAIN Multiple keys request during rehashing of {slot}", QueueUnavailable),
    ],
)
def test_what_clusters_and_proxies_answer_is_one_line(code: str, means: type[Exception]) -> None:
    from redis._parsers.base import BaseParser

    with pytest.raises(means) as told, own_errors("redis://here"):
        raise BaseParser.parse_error(code)  # type: ignore[no-untyped-call]
    assert "redis://here" in str(told.value) and "\n" not in str(told.value)
