"""The queue on Redis beyond what every queue promises: a server that dies, forgets or fills up."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rewardtune.transport.queue import redis_queue
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    Failure,
    FailureKind,
    Job,
    QueueUnavailable,
    Result,
    Term,
)
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.term import StaleTerm
from tests.rewardtune.transport.redis_clients import BOOM, RECORD, TERM, connected, lease, until
from tests.rewardtune.transport.redis_server import RedisServer, running

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[4]
EVERY_BYTE = bytes(range(256)) + b"\r\n\x00"


def test_every_byte_survives_the_way_through_redis(redis_server: RedisServer) -> None:
    with connected(redis_server, max_crashes=1) as queue:
        term = Term(number=1, spec=EVERY_BYTE, capacity=2)
        queue.open_term(term, frontier=0)
        assert queue.term() == term
        for ordinal in (0, 1):
            queue.put(1, ordinal, EVERY_BYTE)
        job = lease(queue)
        assert job.body == EVERY_BYTE
        queue.commit(job, "worker", EVERY_BYTE[::-1])
        queue.fail(lease(queue), "worker", BOOM)
        results = queue.results(1, [0, 1])
        assert results == {0: Result(scored=EVERY_BYTE[::-1]), 1: Result(dead=EVERY_BYTE)}
        (letter,) = queue.dead_letters()
        assert letter.body == EVERY_BYTE


def test_a_failure_may_quote_what_is_not_unicode(redis_server: RedisServer) -> None:
    with connected(redis_server, max_crashes=1) as queue:
        queue.open_term(TERM, frontier=0)
        queue.put(3, 0, b"group")
        queue.fail(
            lease(queue), "worker", Failure(FailureKind.CRASH, "file b\udcff.npy", "Zeile ß")
        )
        ((failure,),) = [letter.failures for letter in queue.dead_letters()]
        assert (failure.message, failure.traceback) == ("file b\\udcff.npy", "Zeile ß")


def test_a_killed_server_with_its_append_only_file_loses_nothing(
    redis_binary: str, tmp_path: Path
) -> None:
    with running(redis_binary, tmp_path, is_durable=True) as server, connected(server) as queue:
        queue.open_term(TERM, frontier=0)
        for ordinal in range(6):
            queue.put(3, ordinal, b"group %d" % ordinal)
        first, second, third = (lease(queue) for _ in range(3))
        queue.commit(first, "worker", b"scored")
        queue.give_back(third, "worker")
        before = queue.stats()
        server.kill()
        for call in calls_of_a_term(queue, second):
            with pytest.raises(QueueUnavailable, match=f"127.0.0.1:{server.port}"):
                call()
        server.start()
        after = queue.stats()
        assert (after.backlog, after.leased, after.results) == (4, 1, 1)
        assert (after.term, after.frontier) == (before.term, before.frontier)
        assert queue.term() == TERM
        assert queue.missing(3, range(8)) == [6, 7]
        assert queue.results(3, range(8)) == {0: Result(scored=b"scored")}
        assert queue.renew(second, "worker")
        assert queue.commit(second, "worker", b"late") is CommitOutcome.ACCEPTED
        again = lease(queue)
        assert (again.ordinal, again.delivery) == (2, 1)


def calls_of_a_term(queue: RedisJobQueue, job: Job) -> list[Callable[[], object]]:
    return [
        lambda: queue.put(3, 7, b"group"),
        lambda: queue.missing(3, [0]),
        lambda: queue.results(3, [0]),
        lambda: queue.wait(3, timeout_seconds=1),
        lambda: queue.consume(3, before=1),
        lambda: queue.renew(job, "worker"),
        lambda: queue.commit(job, "worker", b"scored"),
        lambda: queue.fail(job, "worker", BOOM),
        lambda: queue.give_back(job, "worker"),
    ]


@pytest.mark.parametrize("how", ["wiped", "restarted"])
def test_a_queue_that_was_emptied_knows_no_term_until_it_is_opened_again(
    redis_binary: str, tmp_path: Path, how: str
) -> None:
    with running(redis_binary, tmp_path) as server, connected(server) as queue:
        queue.open_term(TERM, frontier=4)
        for ordinal in (4, 5):
            queue.put(3, ordinal, b"group")
        held, other = lease(queue), lease(queue)
        if how == "wiped":
            server.wipe()
        else:
            server.kill()
            server.start()
        for call in calls_of_a_term(queue, held):
            with pytest.raises(QueueUnavailable, match="knows no term"):
                call()
        assert queue.term() is None
        assert queue.stats().term == -1
        assert queue.lease("worker", reward_digest="d", max_jobs=1, timeout_seconds=0) == []
        assert queue.workers() == []

        queue.open_term(TERM, frontier=4)
        # Scored while the queue was away: the work is real, whoever draws the group anew.
        assert queue.commit(held, "worker", b"scored") is CommitOutcome.ACCEPTED
        assert queue.missing(3, [4, 5]) == [5]
        assert not queue.put(3, 4, b"group")
        assert queue.put(3, 5, b"group")
        again = lease(queue)
        assert again.ordinal == 5
        assert not queue.renew(other, "worker")
        queue.commit(again, "worker", b"scored")
        assert queue.commit(other, "worker", b"scored") is CommitOutcome.DUPLICATE
        assert len(queue.results(3, [4, 5])) == 2


def test_a_server_emptied_while_the_learner_waits_tells_it_soon(
    redis_binary: str, tmp_path: Path
) -> None:
    with running(redis_binary, tmp_path) as server, connected(server) as queue:
        queue.open_term(TERM, frontier=0)
        queue.wait(3, timeout_seconds=0.1)
        with in_thread(lambda: queue.wait(3, timeout_seconds=60)) as waiting:
            until(lambda: num_blocked(server) == 1)
            server.wipe()
        assert isinstance(waiting.error, QueueUnavailable)


class InThread:
    """A call in another thread, and what came of it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.answer: object = None
        self.error: Exception | None = None
        self._call = call
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.answer = self._call()
        except Exception as error:
            self.error = error


@contextmanager
def in_thread(call: Callable[[], object]) -> Iterator[InThread]:
    running_call = InThread(call)
    running_call.thread.start()
    yield running_call
    running_call.thread.join(timeout=20)
    assert not running_call.thread.is_alive()


def num_blocked(server: RedisServer) -> int:
    with server.client() as client:
        info: Any = client.info("clients")
        return int(info["blocked_clients"])


@pytest.mark.parametrize("wake", ["put", "give_back", "fail"])
def test_a_sleeping_worker_is_woken_by_a_job_and_not_by_the_clock(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, wake: str
) -> None:
    monkeypatch.setattr(redis_queue, "MAX_SLEEP_SECONDS", 60.0)
    with connected(redis_server, lease_seconds=600) as queue:
        queue.open_term(TERM, frontier=0)
        queue.put(3, 0, b"group")
        held = lease(queue, "other")
        acts: dict[str, Callable[[], object]] = {
            "put": lambda: queue.put(3, 1, b"group"),
            "give_back": lambda: queue.give_back(held, "other"),
            "fail": lambda: queue.fail(held, "other", BOOM),
        }
        with in_thread(lambda: lease(queue, timeout_seconds=60)) as waiting:
            until(lambda: num_blocked(redis_server) == 1)
            acts[wake]()
        assert isinstance(waiting.answer, Job), waiting.error


@pytest.mark.parametrize("wake", ["commit", "dead", "newer term"])
def test_a_waiting_learner_is_woken_by_a_result_and_not_by_the_clock(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, wake: str
) -> None:
    monkeypatch.setattr(redis_queue, "MAX_SLEEP_SECONDS", 60.0)
    with connected(redis_server, max_crashes=1) as queue:
        queue.open_term(TERM, frontier=0)
        queue.put(3, 0, b"group")
        held = lease(queue)
        queue.wait(3, timeout_seconds=0.1)
        acts: dict[str, Callable[[], object]] = {
            "commit": lambda: queue.commit(held, "worker", b"scored"),
            "dead": lambda: queue.fail(held, "worker", BOOM),
            "newer term": lambda: queue.open_term(Term(4, b"spec", 8), frontier=0),
        }
        with in_thread(lambda: queue.wait(3, timeout_seconds=60)) as waiting:
            until(lambda: num_blocked(redis_server) == 1)
            acts[wake]()
        assert type(waiting.error) is (StaleTerm if wake == "newer term" else type(None))


def test_who_waits_asks_about_once_a_second(redis_server: RedisServer) -> None:
    with connected(redis_server) as queue, redis_server.client() as client:
        queue.open_term(TERM, frontier=0)
        queue.wait(3, timeout_seconds=0.1)
        idle: dict[str, Callable[[], object]] = {
            "lease": lambda: queue.lease(
                "worker", reward_digest="d", max_jobs=1, timeout_seconds=1
            ),
            "wait": lambda: queue.wait(3, timeout_seconds=1),
        }
        for name, call in idle.items():
            client.config_resetstat()
            began = time.monotonic()
            call()
            took = time.monotonic() - began
            stats: Any = client.info("commandstats")
            asked = sum(
                stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]
                for command in ("evalsha", "blpop", "xread")
            )
            assert 0.9 < took < 5, name
            assert 2 <= asked <= 3 + 2 * took, name


def test_runs_on_one_server_know_nothing_of_each_other(redis_server: RedisServer) -> None:
    with connected(redis_server, run="a") as one, connected(redis_server, run="b") as other:
        one.open_term(TERM, frontier=0)
        one.put(3, 0, b"group")
        assert other.term() is None
        other.open_term(Term(number=1, spec=b"other", capacity=2), frontier=0)
        assert other.stats().backlog == 0
        assert one.stats().backlog == 1


def test_the_limits_of_whoever_opened_the_term_hold_for_all(redis_server: RedisServer) -> None:
    with (
        connected(redis_server, lease_seconds=600, max_crashes=1) as learner,
        connected(redis_server, lease_seconds=0.001) as worker,
    ):
        learner.open_term(TERM, frontier=0)
        learner.put(3, 0, b"group")
        held = lease(worker)
        assert worker.lease("thief", reward_digest="", max_jobs=1, timeout_seconds=0.1) == []
        assert worker.fail(held, "worker", BOOM) == "dead"


def test_a_full_memory_holds_up_puts_and_lets_results_through(redis_server: RedisServer) -> None:
    with connected(redis_server, max_crashes=1) as queue, redis_server.client() as client:
        queue.open_term(TERM, frontier=0)
        for ordinal in range(4):
            queue.put(3, ordinal, b"group")
        held = lease(queue)
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(QueueUnavailable, match="memory .* is full"):
                queue.put(3, 4, b"group")
            assert queue.missing(3, [4]) == [4]
            assert queue.commit(held, "worker", b"scored") is CommitOutcome.ACCEPTED
            queue.give_back(lease(queue), "worker")
            assert queue.fail(lease(queue), "worker", BOOM) == "dead"
            assert not queue.heartbeat(RECORD, ttl_seconds=60)
            assert sorted(queue.results(3, range(8))) == [0, 1]
            queue.consume(3, before=2)
        finally:
            client.config_set("maxmemory", "0")
        assert queue.put(3, 4, b"group")
        stats = queue.stats()
        assert (stats.frontier, stats.backlog, stats.leased, stats.results) == (2, 3, 0, 0)


WORKER_PROGRAM = """
import sys
from rewardtune.transport.queue.job_queue import QueueLimits
from rewardtune.transport.queue.redis_queue import RedisJobQueue

url, name, how = sys.argv[1:]
queue = RedisJobQueue.connect(url, run="run")
while True:
    jobs = queue.lease(name, reward_digest="", max_jobs=2, timeout_seconds=1)
    if jobs and how == "hang":
        print(len(jobs), flush=True)
        sys.stdin.read()
    for job in jobs:
        queue.commit(job, name, job.body + b" by " + name.encode())
"""


def test_processes_share_a_queue_and_a_killed_one_loses_nothing(
    redis_server: RedisServer,
) -> None:
    def start(name: str, how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER_PROGRAM, redis_server.url, name, how],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    term = Term(number=1, spec=b"", capacity=100)
    with ExitStack() as stack, connected(redis_server, lease_seconds=0.5) as queue:
        queue.open_term(term, frontier=0)
        for ordinal in range(50):
            queue.put(1, ordinal, b"group %d" % ordinal)
        hanging = stack.enter_context(start("hanging", "hang"))
        stack.callback(hanging.kill)
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == "2\n"
        hanging.kill()
        for name in ("one", "two"):
            stack.callback(stack.enter_context(start(name, "work")).kill)
        for ordinal in range(50, 100):
            queue.put(1, ordinal, b"group %d" % ordinal)
        until(lambda: queue.stats().results == 100)
        results = queue.results(1, range(100))
        for ordinal in range(100):
            scored = results[ordinal].scored or b""
            assert re.fullmatch(rb"group %d by (one|two)" % ordinal, scored)
        stats = queue.stats()
        assert (stats.redeliveries, stats.duplicate_commits) == (2, 0)
        assert (stats.backlog, stats.leased) == (0, 0)


def test_the_queue_keeps_up_with_the_groups_that_a_run_needs(
    redis_server: RedisServer,
) -> None:
    body, num = b"x" * 4096, 100
    seconds = []
    with connected(redis_server) as queue:
        queue.open_term(Term(number=1, spec=b"", capacity=num), frontier=0)
        for first in range(0, 3 * num, num):
            ordinals = range(first, first + num)
            began = time.monotonic()
            for ordinal in ordinals:
                queue.put(1, ordinal, body)
            for _ in ordinals:
                queue.commit(lease(queue), "worker", body)
            assert len(queue.results(1, ordinals)) == num
            queue.consume(1, before=ordinals.stop)
            seconds.append(time.monotonic() - began)
    # Measured: 1200 groups/s. A run needs at most 100, here of a machine that does other things.
    assert num / min(seconds) > 100
