"""``rediss://`` against a real Redis that speaks TLS and asks for a client's certificate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue, QueueRefused
from rewardtune.transport.security.config import SecurityConfig
from tests.rewardtune.transport.certificates import Authority
from tests.rewardtune.transport.redis_server import (
    RedisServer,
    redis_binaries,
    running,
    speaks_tls,
)


@dataclass(frozen=True, slots=True)
class Guarded:
    server: RedisServer
    ours: SecurityConfig
    """Of the server's own authority."""
    theirs: SecurityConfig
    """Of another one."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    able = [binary for binary in redis_binaries().values() if speaks_tls(binary)]
    if not able:
        pytest.skip("no redis-server here was built with TLS")
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = Authority(folder / "ours", "ours"), Authority(folder / "theirs", "theirs")
    with running(able[0], folder, password="CANARY", tls=ours.issue("redis")) as server:
        yield Guarded(server, ours.issue("worker"), theirs.issue("stranger"))


def connected(guarded: Guarded, security: SecurityConfig) -> JobQueue:
    return connect_queue(guarded.server.url, run="run", lease_seconds=1, security=security)


def test_a_queue_behind_tls_is_reached_with_a_certificate(guarded: Guarded) -> None:
    queue = connected(guarded, guarded.ours)
    assert queue.term() is None
    queue.close()


@pytest.mark.parametrize(
    ("whose", "complaint"),
    [
        ("wrong ca", "security.ca must have signed it"),
        ("nothing", "security.ca must have signed it"),
        ("no certificate", "set security.certificate and security.key"),
        ("stranger", "does not believe the authority of security.certificate"),
    ],
)
def test_who_does_not_fit_is_refused_in_one_line(
    guarded: Guarded, whose: str, complaint: str
) -> None:
    ours, theirs = guarded.ours, guarded.theirs
    security = {
        "wrong ca": ours.model_copy(update={"ca": theirs.ca}),
        "nothing": SecurityConfig(),
        "no certificate": SecurityConfig(ca=ours.ca),
        "stranger": theirs.model_copy(update={"ca": ours.ca}),
    }[whose]
    with pytest.raises(QueueRefused, match=complaint) as refused:
        connected(guarded, security)
    assert "\n" not in str(refused.value) and "CANARY" not in str(refused.value)
