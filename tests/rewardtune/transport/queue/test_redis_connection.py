"""Servers that refuse, and how the queue says so; what a worker must be allowed to do."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    QueueLimits,
    QueueRefused,
    QueueUnavailable,
)
from rewardtune.transport.queue.redis_acl import users
from rewardtune.transport.queue.redis_connection import check_server, own_errors
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from tests.rewardtune.transport.redis_clients import BOOM, RECORD, TERM, connected, lease
from tests.rewardtune.transport.redis_server import RedisServer, running

# As ``rewardtune redis-acl run`` prints them.
_, WORKER = users("run", learner="pw", worker="pw")


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:secret@"])
def test_a_wrong_login_is_refused_in_one_line(
    redis_binary: str, tmp_path: Path, login: str
) -> None:
    with running(redis_binary, tmp_path, password="secret") as server:
        with connected(server) as queue:
            assert queue.term() is None
        with pytest.raises(QueueRefused, match="USER:PASSWORD@HOST") as refused:
            RedisJobQueue.connect(f"redis://{login}127.0.0.1:{server.port}", run="run")
        assert "\n" not in str(refused.value)
        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")


def test_nobody_there_is_unavailable_and_keeps_the_password_to_itself() -> None:
    with pytest.raises(QueueUnavailable, match="127.0.0.1:1") as absent:
        RedisJobQueue.connect("redis://:secret@127.0.0.1:1", run="run")
    assert "secret" not in str(absent.value)
    assert "\n" not in str(absent.value)


def test_malformed_names_are_told() -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        RedisJobQueue.connect("redis://127.0.0.1:1", run="a}b")
    with pytest.raises(ValueError, match="must be redis://") as wrong:
        RedisJobQueue.connect("http://:secret@127.0.0.1:1", run="run")
    assert "secret" not in str(wrong.value)
    with pytest.raises(ValueError, match="lease_seconds"):
        RedisJobQueue.connect("redis://127.0.0.1:1", run="run", limits=QueueLimits(lease_seconds=0))


@pytest.mark.parametrize("version", ["5.0.14", "6.0.16", "6", ""])
def test_an_old_server_is_refused_by_what_it_says_of_itself(version: str) -> None:
    with pytest.raises(QueueRefused, match=r"needs 6\.2 or newer"):
        check_server({"redis_version": version}, where="here")


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "8.10.1", "10.0"])
def test_a_newer_server_is_not_refused(version: str) -> None:
    check_server({"redis_version": version, "maxmemory_policy": "noeviction"}, where="here")


class OldRedis(socketserver.StreamRequestHandler):
    """Answers INFO as Redis 5 would, and an error to all else."""

    def handle(self) -> None:
        info = b"# Server\r\nredis_version:5.0.14\r\n"
        while line := self.rfile.readline():
            if not line.startswith(b"*"):
                continue
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2).rstrip())
            if words[0] == b"INFO":
                self.wfile.write(b"$%d\r\n%s\r\n" % (len(info), info))
            else:
                self.wfile.write(b"-ERR unknown command\r\n")


class NotRedis(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.rfile.read()


@pytest.mark.parametrize(
    ("what", "reason"),
    [(OldRedis, r"Redis 5\.0\.14 .* needs 6\.2"), (NotRedis, "not Redis")],
)
def test_a_server_that_cannot_hold_the_queue_is_refused_in_one_line(
    what: type[socketserver.BaseRequestHandler], reason: str
) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), what) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"redis://127.0.0.1:{server.server_address[1]}"
            with pytest.raises(QueueRefused, match=reason) as refused:
                RedisJobQueue.connect(url, run="run")
        finally:
            server.shutdown()
            thread.join()
    assert "\n" not in str(refused.value)


def test_a_server_that_would_drop_jobs_is_refused(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(QueueRefused, match="CONFIG SET maxmemory-policy noeviction"):
                RedisJobQueue.connect(redis_server.url, run="run")
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_worker_with_rights_to_one_run_can_work_and_do_nothing_else(
    redis_binary: str, tmp_path: Path
) -> None:
    rules = [
        WORKER.replace("run-worker", "w"),
        WORKER.replace("run-worker", "lame").replace(" +xdel", ""),
    ]
    with ExitStack() as stack:
        server = stack.enter_context(running(redis_binary, tmp_path, users=rules))

        def login(user: str, run: str) -> RedisJobQueue:
            url = f"redis://{user}:pw@127.0.0.1:{server.port}"
            return stack.enter_context(connected(server, url=url, run=run))

        learner = stack.enter_context(connected(server, max_crashes=1))
        learner.open_term(TERM, frontier=0)
        for ordinal in range(4):
            learner.put(3, ordinal, b"group")

        worker = login("w", "run")
        assert worker.term() == TERM
        assert not worker.heartbeat(RECORD, ttl_seconds=60)
        first, second, third = (lease(worker) for _ in range(3))
        assert worker.renew(first, "worker")
        assert worker.commit(first, "worker", b"scored") is CommitOutcome.ACCEPTED
        assert worker.fail(second, "worker", BOOM) == "dead"
        worker.give_back(third, "worker")
        assert len(worker.workers()) == 1
        assert worker.stats().results == 2
        worker.deregister("worker")
        assert len(worker.lease("w", reward_digest="", max_jobs=9, timeout_seconds=0)) == 2

        refused: list[Callable[[], object]] = [
            lambda: login("w", "other").term(),
            lambda: login("w", "other").stats(),
            lambda: login("lame", "run").commit(third, "worker", b"scored"),
        ]
        for call in refused:
            with pytest.raises(QueueRefused, match="denies its user") as error:
                call()
            assert "\n" not in str(error.value)
        with redis.Redis(port=server.port, username="w", password="pw", protocol=2) as plain:
            for command in (["FLUSHALL"], ["CONFIG", "GET", "*"], ["KEYS", "*"]):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    plain.execute_command(*command)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("LOADING Redis is loading the dataset in memory", QueueUnavailable),
        ("READONLY You can't write against a read only replica.", QueueUnavailable),
        ("MISCONF Redis is configured to save RDB snapshots", QueueUnavailable),
        ("Error running script: @user_script:1: -MISCONF Errors writing", QueueUnavailable),
        ("BUSY Redis is busy running a script.", QueueUnavailable),
        ("-NOGROUP No such key '{run}:work' or consumer group", QueueUnavailable),
        ("OOM command not allowed when used memory > 'maxmemory'.", QueueUnavailable),
        ("The user executing the script can't run this command or subcommand", QueueRefused),
        ("ACL failure in script: User w has no permissions", QueueRefused),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", redis.ResponseError),
    ],
)
def test_what_redis_says_is_put_into_the_queues_words(said: str, means: type[Exception]) -> None:
    with pytest.raises(means), own_errors("here"):
        raise redis.ResponseError(said)
