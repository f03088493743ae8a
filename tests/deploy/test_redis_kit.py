"""The very redis.conf and users.acl of deploy/, on a real server: who may do what."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    Failure,
    FailureKind,
    QueueRefused,
    QueueUnavailable,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.redis_acl import users
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from tests.deploy.manifests import DEPLOY, of_kind
from tests.rewardtune.transport.redis_server import RedisServer, redis_binaries

FOLDER = DEPLOY / "redis"
BINARIES = redis_binaries()
REDIS_CLI = shutil.which("redis-cli")
TERM = Term(number=1, spec=b"spec", capacity=4)
PASSWORDS = {"learner": "a1b2", "worker": "c3d4"}


def rendered_users(folder: Path) -> Path:
    """users.acl as the init container of the StatefulSet leaves it, by its own command."""
    (stateful,) = of_kind("StatefulSet").values()
    (container,) = stateful["spec"]["template"]["spec"]["initContainers"]
    shell, option, script = container["command"]
    target = folder / "users.acl"
    script = script.replace("/etc/redis/", f"{FOLDER}/").replace("/acl/", f"{folder}/")
    subprocess.run(
        [shell, option, script],
        check=True,
        env={f"{name.upper()}_PASSWORD": password for name, password in PASSWORDS.items()}
        | {"PATH": "/usr/bin:/bin"},
    )
    return target


class KitServer(RedisServer):
    """Started with deploy/redis/redis.conf; only where it lives is told anew."""

    def __init__(self, binary: str, folder: Path) -> None:
        super().__init__(binary, folder)
        self.stop()
        users = rendered_users(folder)
        text = (FOLDER / "redis.conf").read_text()
        assert "aclfile /acl/users.acl" in text and "dir /data" in text
        text = text.replace("/acl/users.acl", str(users)).replace("dir /data", f'dir "{folder}"')
        text = text.replace("bind * -::*", "bind 127.0.0.1").replace(
            "port 6379", f"port {self.port}"
        )
        self._config.write_text(text)
        self.start()

    @property
    def has_functions(self) -> bool:
        """It is 7 or newer."""
        with closing(self.as_user("learner")) as client:
            return int(client.info("server")["redis_version"].split(".")[0]) >= 7

    def queue(self, user: str, *, password: str = "", run: str = "digits") -> RedisJobQueue:
        login = f"digits-{user}:{password or PASSWORDS[user]}"
        return RedisJobQueue.connect(f"redis://{login}@127.0.0.1:{self.port}/0", run=run)

    def as_user(self, user: str) -> redis.Redis:
        client: redis.Redis = redis.Redis(
            retry=Retry(NoBackoff(), 0),
            port=self.port,
            username=f"digits-{user}",
            password=PASSWORDS[user],
            protocol=2,
        )
        return client


@pytest.fixture(scope="module", params=BINARIES, ids=str)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KitServer]:
    running = KitServer(BINARIES[request.param], tmp_path_factory.mktemp("redis"))
    yield running
    running.kill()


def record(name: str) -> WorkerRecord:
    return WorkerRecord(
        worker=name, reward_digest="r", dataset_digest="d", state="ready", num_scorers=1
    )


def test_learner_and_worker_may_do_all_that_the_queue_asks_of_them(server: KitServer) -> None:
    with closing(server.queue("learner")) as learner, closing(server.queue("worker")) as worker:
        learner.open_term(TERM, frontier=0)
        learner.open_term(TERM, frontier=0)
        assert all(learner.put(1, ordinal, b"body") for ordinal in range(4))
        assert learner.missing(1, range(5)) == [4]

        term = worker.term()
        assert term is not None and term.number == 1
        assert worker.heartbeat(record("w"), ttl_seconds=30) is False
        jobs = worker.lease("w", reward_digest="r", max_jobs=4, timeout_seconds=5)
        assert [job.ordinal for job in jobs] == [0, 1, 2, 3]
        assert worker.renew(jobs[0], "w")
        assert worker.commit(jobs[0], "w", b"score") is CommitOutcome.ACCEPTED
        assert worker.commit(jobs[0], "w", b"score") is CommitOutcome.DUPLICATE
        worker.give_back(jobs[1], "w")
        for kind in (FailureKind.EXCEPTION, FailureKind.EXCEPTION):
            worker.fail(jobs[2], "w", Failure(kind, "same", "traceback"))
            jobs[2:3] = worker.lease("w", reward_digest="r", max_jobs=1, timeout_seconds=5)
        worker.lease("w", reward_digest="r", max_jobs=4, timeout_seconds=0.1)
        learner.wait(1, timeout_seconds=0.1)
        assert 0 in learner.results(1, range(4))
        learner.consume(1, before=1)

        learner.request_drain("w")
        assert worker.heartbeat(record("w"), ttl_seconds=30) is True
        assert [each.worker for each in learner.workers()] == ["w"]
        assert learner.stats().term == 1
        assert isinstance(learner.dead_letters(), list)
        worker.deregister("w")
        assert learner.workers() == []
        learner.open_term(Term(number=2, spec=b"spec", capacity=4), frontier=1)


def test_a_worker_cannot_take_the_queue_over(server: KitServer) -> None:
    with closing(server.queue("worker")) as worker, pytest.raises(QueueRefused, match="denies"):
        worker.open_term(Term(number=9, spec=b"mine", capacity=4), frontier=0)


@pytest.mark.parametrize("user", list(PASSWORDS))
@pytest.mark.parametrize(
    "command",
    [
        ["FLUSHALL"],
        ["CONFIG", "GET", "*"],
        ["CONFIG", "SET", "maxmemory", "1"],
        ["KEYS", "*"],
        ["ACL", "LIST"],
        ["SHUTDOWN"],
        ["SCRIPT", "FLUSH"],
        ["EVAL", "return 1", "0"],
        ["SET", "elsewhere", "1"],
        ["GET", "elsewhere"],
        ["HSET", "{other}:term", "number", "9"],
        ["DEL", "{other}:work"],
    ],
    ids=" ".join,
)
def test_nobody_may_do_more_than_work(server: KitServer, user: str, command: list[str]) -> None:
    with closing(server.as_user(user)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)  # type: ignore[no-untyped-call]


def test_a_worker_may_not_have_redis_run_what_it_likes(server: KitServer) -> None:
    """A script without an end keeps everybody waiting, and only a restart ends it."""
    with (
        closing(server.as_user("worker")) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.script_load("while true do end")


def test_users_are_those_that_the_command_prints() -> None:
    *_, learner, worker = (FOLDER / "users.acl").read_text().splitlines()
    told = users("digits", learner=">LEARNER_PASSWORD", worker=">WORKER_PASSWORD")
    assert [learner, worker] == told


def probe(server: KitServer) -> int:
    """The liveness probe's own command, on the server's port; its exit code."""
    (stateful,) = of_kind("StatefulSet").values()
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["exec"] == container["livenessProbe"]["exec"]
    shell, option, script = container["livenessProbe"]["exec"]["command"]
    script = script.replace("redis-cli", f"{REDIS_CLI} -h 127.0.0.1 -p {server.port}")
    try:
        return subprocess.run(
            [shell, option, script], check=False, capture_output=True, timeout=1
        ).returncode
    except subprocess.TimeoutExpired:  # the kubelet's, which is 3 s
        return 1


@pytest.mark.skipif(REDIS_CLI is None, reason="redis-cli is not installed: the probe needs it")
def test_a_server_that_is_busy_for_good_fails_its_probe(server: KitServer) -> None:
    assert probe(server) == 0
    with closing(server.as_user("learner")) as client, suppress(redis.ConnectionError):
        endless = client.script_load("while true do end")
        busy = threading.Thread(target=run_for_good, args=(client, endless))
        busy.start()
        try:
            while probe(server) == 0:
                assert busy.is_alive()
            with socket.create_connection(("127.0.0.1", server.port)):
                pass  # as a probe of the socket alone would see it
        finally:
            server.kill()
            busy.join()
            server.start()
    assert probe(server) == 0


def run_for_good(client: redis.Redis, script: str) -> None:
    with suppress(redis.ConnectionError, redis.TimeoutError):
        client.evalsha(script, 0)


def test_without_the_right_password_nobody_gets_in(server: KitServer) -> None:
    with pytest.raises(QueueRefused, match="refused the login"):
        server.queue("worker", password="guess")
    anonymous: redis.Redis = redis.Redis(port=server.port, protocol=2, retry=Retry(NoBackoff(), 0))
    with closing(anonymous) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def written(server: KitServer) -> bool:
    """Whether all that was acknowledged is in the append-only file.

    A write waits there while the disk is still at the second before.
    """
    with closing(server.as_user("learner")) as client:
        info = client.info("persistence")
    return bool(info["aof_buffer_length"] == 0 and info["aof_pending_bio_fsync"] == 0)


def test_what_was_written_is_there_after_a_crash(server: KitServer) -> None:
    with closing(server.queue("learner")) as learner:
        learner.open_term(TERM, frontier=0, afresh=True)
        assert learner.put(1, 0, b"body")
        until = time.monotonic() + 20
        while not written(server):
            assert time.monotonic() < until
        server.kill()
        server.start()
        with closing(server.queue("worker")) as worker:
            # From Redis 7 on scripts are not in the file: who may load them does, all others wait.
            if server.has_functions:
                with pytest.raises(QueueUnavailable, match="may not load them: the learner does"):
                    worker.lease("w", reward_digest="r", max_jobs=1, timeout_seconds=0)
            assert learner.missing(1, [0]) == []
            (job,) = worker.lease("w", reward_digest="r", max_jobs=1, timeout_seconds=5)
            assert job.body == b"body"


def test_other_pods_are_let_in() -> None:
    # With a default user without a password Redis would be open to its own machine only.
    assert "nopass" not in (FOLDER / "users.acl").read_text()
    assert "protected-mode yes" in (FOLDER / "redis.conf").read_text()
