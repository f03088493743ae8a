"""The scripts as the one place where jobs change: exactly once, like memory, nothing left over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    Failure,
    FailureKind,
    Job,
    JobQueue,
    QueueFull,
    QueueLimits,
    QueueRefused,
    QueueUnavailable,
    Result,
    Term,
)
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.queue.redis_scripts import of_worker, shared
from rewardtune.transport.term import StaleTerm
from tests.rewardtune.transport.conftest import REDIS_BINARIES
from tests.rewardtune.transport.redis_clients import BOOM, RECORD, TERM, connected, lease, until
from tests.rewardtune.transport.redis_server import RedisServer


def test_a_newer_term_deletes_every_key_of_the_older(redis_server: RedisServer) -> None:
    with connected(redis_server, max_crashes=1) as queue, redis_server.client() as client:
        queue.open_term(TERM, frontier=2)
        for ordinal in range(2, 10):
            queue.put(3, ordinal, b"group")
        queue.commit(lease(queue), "worker", b"scored")
        queue.fail(lease(queue), "worker", BOOM)
        lease(queue)
        queue.open_term(Term(number=4, spec=b"spec", capacity=8), frontier=2)
        keys: Any = client.keys("*")
        assert sorted(keys) == [b"{run}:bell", b"{run}:term", b"{run}:work"]


def test_consuming_leaves_no_key_behind(redis_server: RedisServer) -> None:
    with connected(redis_server, max_crashes=1) as queue, redis_server.client() as client:
        queue.open_term(TERM, frontier=0)
        for first in range(0, 24, 8):
            for ordinal in range(first, first + 8):
                queue.put(3, ordinal, b"group")
            queue.commit(lease(queue), "worker", b"scored")
            queue.fail(lease(queue), "worker", BOOM)
            lease(queue)
            queue.consume(3, before=first + 8)
            assert client.keys("{run}:3:*") == []
            assert client.xlen("{run}:work") == 0
            pending: Any = client.xpending("{run}:work", "workers")
            assert pending["pending"] == 0
        assert queue.stats().results == 0
        assert client.llen("{run}:calls") <= TERM.capacity


def test_a_worker_that_leaves_takes_its_consumer_along_unless_it_has_a_job(
    redis_server: RedisServer,
) -> None:
    with connected(redis_server) as queue, redis_server.client() as client:
        queue.open_term(TERM, frontier=0)
        queue.put(3, 0, b"group")
        held = lease(queue, "one")
        queue.lease("two", reward_digest="d", max_jobs=1, timeout_seconds=0)
        for worker in ("one", "two"):
            queue.deregister(worker)
        consumers: Any = client.xinfo_consumers("{run}:work", "workers")
        assert [consumer["name"] for consumer in consumers] == [b"one"]
        assert queue.commit(held, "one", b"scored") is CommitOutcome.ACCEPTED


def test_a_worker_is_listed_as_it_described_itself_until_its_time_is_over(
    redis_server: RedisServer,
) -> None:
    with connected(redis_server) as queue, redis_server.client() as client:
        queue.heartbeat(RECORD, ttl_seconds=60)
        assert queue.workers() == [RECORD]
        queue.heartbeat(RECORD, ttl_seconds=0.001)
        until(lambda: queue.workers() == [])
        keys: Any = client.keys("*")
        assert keys == []


def settle_each_job_once(queue: RedisJobQueue) -> None:
    """Two workers come to hold the same job; AssertionError if it then counts twice or not."""
    queue.open_term(Term(number=1, spec=b"", capacity=8), frontier=0)
    queue.put(1, 0, b"old")
    of_old_term = lease(queue, "slow")
    queue.open_term(TERM, frontier=0)
    assert queue.commit(of_old_term, "slow", b"old") == "stale"
    assert queue.missing(3, [0]) == [0]
    queue.put(3, 0, b"group")
    slow = lease(queue, "slow")
    fast = lease(queue, "fast")
    assert (slow.ordinal, fast.ordinal, fast.delivery) == (0, 0, 2)
    assert not queue.renew(slow, "slow")
    assert queue.commit(fast, "fast", b"first") == "accepted"
    assert queue.commit(slow, "slow", b"second") == "duplicate"
    assert queue.results(3, [0]) == {0: Result(scored=b"first")}
    assert not queue.put(3, 0, b"group")
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results) == (0, 0, 1)
    assert queue.lease("third", reward_digest="", max_jobs=1, timeout_seconds=0.1) == []
    queue.consume(3, before=1)
    assert queue.commit(slow, "slow", b"second") == "stale"
    assert queue.results(3, [0]) == {}


def test_a_job_that_two_workers_hold_is_settled_once(redis_server: RedisServer) -> None:
    with connected(redis_server, lease_seconds=0.05) as queue:
        settle_each_job_once(queue)


@pytest.mark.parametrize(
    ("script", "right", "wrong"),
    [
        # The last writer wins.
        ("COMMIT", "redis.call('EXISTS', result_key(ARGV[2])) == 1", "false"),
        # A result whose entry is acknowledged in another step, before which the worker dies.
        ("SHARED", "drop_entry(entry)\n    redis.call('HDEL'", "redis.call('HDEL'"),
        # Acknowledged and not deleted.
        ("SHARED", "redis.call('XDEL', WORK, entry)", ""),
        # Acknowledged, and the worker dies before it stores the result.
        ("SHARED", "redis.call('SET', result_key(ordinal), result)", ""),
        # Whatever term, whatever ordinal.
        ("COMMIT", "if refused or", "if"),
        ("COMMIT", "ordinal < frontier or", ""),
        # A lease that has passed on is renewed by who had it.
        ("RENEW", "not is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4])", "false"),
    ],
)
def test_a_script_that_breaks_the_promise_is_noticed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, script: str, right: str, wrong: str
) -> None:
    home = shared if script == "SHARED" else of_worker
    text = getattr(home, script)
    assert text.count(right) == 1
    monkeypatch.setattr(home, script, text.replace(right, wrong))
    with connected(redis_server, lease_seconds=0.05) as queue, pytest.raises(AssertionError):
        settle_each_job_once(queue)


NO_JOB = Job(term=1, ordinal=0, body=b"", delivery=1, lease="none")
CALLS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("open", "put", "put", "put", "missing", "results", "consume", "stats"),
                *("lease", "lease", "lease", "renew", "commit", "fail", "fail", "fail"),
                *("give_back", "dead_letters", "heartbeat", "request_drain", "deregister"),
                "workers",
            ]
        ),
        st.integers(0, 9),
        st.integers(0, 3),
    ),
    min_size=20,
    max_size=80,
)
"""Calls, each with two small numbers to be made into what it takes."""


def outcome(
    queue: JobQueue, held: list[tuple[Job, str]], name: str, number: int, small: int
) -> object:
    """What a call answers, or the kind of error that it raises, without the names of leases."""
    term, worker = 1 + small // 3, "ab"[small % 2]
    # Mostly the last that was leased, as who leased it.
    job, owner = held[-1 - number % min(3, len(held))] if held else (NO_JOB, worker)
    owner = worker if number == 9 else owner
    kind = list(FailureKind)[small]
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: queue.open_term(
            Term(term + number // 9, b"%d" % (number == 8), 6), frontier=small
        ),
        "put": lambda: queue.put(term, number, b"group %d" % number),
        "missing": lambda: queue.missing(term, range(10)),
        "results": lambda: queue.results(term, range(10)),
        "consume": lambda: queue.consume(term, before=number // 2),
        "renew": lambda: queue.renew(job, owner),
        "commit": lambda: queue.commit(job, owner, b"scored by " + worker.encode()),
        "fail": lambda: queue.fail(job, owner, Failure(kind, f"message {number % 2}")),
        "give_back": lambda: queue.give_back(job, owner),
        "stats": lambda: replace(queue.stats(), oldest_seconds=0),
        "dead_letters": queue.dead_letters,
        "heartbeat": lambda: queue.heartbeat(replace(RECORD, worker=worker), ttl_seconds=600),
        "request_drain": lambda: queue.request_drain(worker),
        "deregister": lambda: queue.deregister(worker),
        "workers": queue.workers,
    }
    try:
        if name != "lease":
            return calls[name]()
        jobs = queue.lease(worker, reward_digest="d", max_jobs=1 + small, timeout_seconds=0)
    except (QueueUnavailable, QueueRefused, QueueFull, StaleTerm) as error:
        return type(error)
    held.extend((job, worker) for job in jobs)
    return [replace(job, lease="") for job in jobs]


@pytest.mark.parametrize("name", sorted(REDIS_BINARIES))
@given(calls=CALLS)
def test_redis_and_memory_answer_every_sequence_of_calls_alike(
    redis_server_of: Callable[[str], RedisServer], name: str, calls: list[tuple[str, int, int]]
) -> None:
    server = redis_server_of(name)
    server.wipe()
    in_memory = MemoryJobQueue(QueueLimits(lease_seconds=600))
    with connected(server, lease_seconds=600) as in_redis:
        held_in_memory: list[tuple[Job, str]] = []
        held_in_redis: list[tuple[Job, str]] = []
        for call in [("open", 0, 0), *calls]:
            expected = outcome(in_memory, held_in_memory, *call)
            assert outcome(in_redis, held_in_redis, *call) == expected, call
        names = [job.lease for job, _ in held_in_redis]
        assert len(set(names)) == len(names)
