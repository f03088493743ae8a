"""What is special to Ray: an actor that dies, is busy, or belongs to another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray

from rewardtune.transport.queue import ray_queue as ray_queue_module
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    Job,
    QueueFull,
    QueueLimits,
    QueueRefused,
    QueueUnavailable,
    Result,
    Term,
)
from rewardtune.transport.queue.ray_queue import RayJobQueue, join_ray_queue, start_ray_queue
from rewardtune.transport.term import StaleTerm
from tests.rewardtune.transport.conftest import renew

pytestmark = pytest.mark.alone

NAMESPACE = "tests-ray-queue"
TERM = Term(number=3, spec=b"spec", capacity=64)


@pytest.fixture(scope="module")
def started(ray_session: None) -> Iterator[RayJobQueue]:
    queue = start_ray_queue("queue", NAMESPACE, QueueLimits())
    yield queue
    ray.kill(queue._actor)


@pytest.fixture
def queue(started: RayJobQueue) -> RayJobQueue:
    until_back(started)
    renew(started, QueueLimits())
    return started


def kill(queue: RayJobQueue) -> None:
    """End the actor's process, which had a term open, and return when it is gone."""
    ray.kill(queue._actor, no_restart=False)

    def is_gone() -> bool:
        try:
            return queue.term() is None
        except QueueUnavailable:
            return True

    until(is_gone)


def until_back(queue: RayJobQueue) -> None:
    def is_back() -> bool:
        try:
            queue.term()
        except QueueUnavailable:
            return False
        return True

    until(is_back)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def leased(queue: RayJobQueue, worker: str = "a", *, patience: float = 10.0) -> Job:
    (job,) = queue.lease(worker, reward_digest="d", max_jobs=1, timeout_seconds=patience)
    return job


def test_an_actor_that_died_comes_back_empty_and_the_learner_opens_its_term_again(
    queue: RayJobQueue,
) -> None:
    queue.open_term(TERM, frontier=4)
    for ordinal in (4, 5):
        queue.put(3, ordinal, b"group")
    held, other = leased(queue), leased(queue)
    kill(queue)
    until_back(queue)
    calls: list[Callable[[], object]] = [
        lambda: queue.put(3, 6, b"group"),
        lambda: queue.results(3, [4]),
        lambda: queue.wait(3, timeout_seconds=60),
        lambda: queue.renew(held, "a"),
        lambda: queue.commit(held, "a", b"scored"),
    ]
    for call in calls:
        with pytest.raises(QueueUnavailable, match="knows no term"):
            call()
    assert queue.lease("a", reward_digest="d", max_jobs=1, timeout_seconds=0) == []

    queue.open_term(TERM, frontier=4)
    assert queue.missing(3, [4, 5]) == [4, 5]
    assert queue.commit(held, "a", b"scored") is CommitOutcome.ACCEPTED
    assert queue.put(3, 5, b"group")
    again = leased(queue)
    # The same worker, job and delivery: only the lease's name tells them apart.
    assert again.lease != other.lease
    assert not queue.renew(other, "a")
    assert queue.renew(again, "a")


def test_a_learner_that_waits_hears_that_the_queue_died(queue: RayJobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    queue.wait(3, timeout_seconds=10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, 3, timeout_seconds=60.0)
        kill(queue)
        with pytest.raises(QueueUnavailable):
            waiting.result(20)


def test_what_the_queue_raises_comes_out_as_itself(queue: RayJobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    calls: dict[type[Exception], Callable[[], object]] = {
        StaleTerm: lambda: queue.put(2, 0, b"group"),
        QueueFull: lambda: queue.put(3, 64, b"group"),
        QueueUnavailable: lambda: queue.put(4, 0, b"group"),
        QueueRefused: lambda: queue.open_term(Term(3, b"other", 64), frontier=0),
    }
    for kind, call in calls.items():
        with pytest.raises(kind) as raised:
            call()
        assert type(raised.value) is kind
        assert "\n" not in str(raised.value)


def test_sleeping_workers_hold_up_nobody_and_each_gets_its_job(queue: RayJobQueue) -> None:
    num = 32
    queue.open_term(TERM, frontier=0)
    with ThreadPoolExecutor(num) as pool:
        waiting = [pool.submit(leased, queue, f"worker-{n}", patience=60.0) for n in range(num)]
        began = time.monotonic()
        for ordinal in range(num):
            assert queue.put(3, ordinal, b"group")
        # Behind one that sleeps it would be a minute.
        assert time.monotonic() - began < 30
        jobs = [each.result(60) for each in waiting]
    assert sorted(job.ordinal for job in jobs) == list(range(num))


def test_other_processes_of_the_cluster_join_by_name(queue: RayJobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    queue.put(3, 0, b"group")

    @ray.remote(num_cpus=0)
    def work() -> str:
        there = connect_queue(f"ray://{NAMESPACE}/queue", run="run", lease_seconds=30)
        (job,) = there.lease("there", reward_digest="d", max_jobs=1, timeout_seconds=10)
        return str(there.commit(job, "there", job.body + b" scored there"))

    call: Any = work.remote()
    assert ray.get(call, timeout=60) == "accepted"
    assert queue.results(3, [0]) == {0: Result(scored=b"group scored there")}


def _busy(actor: object, seconds: float) -> None:
    time.sleep(seconds)


def test_an_actor_that_does_not_answer_is_unavailable(
    queue: RayJobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor: Any = queue._actor
    monkeypatch.setattr(ray_queue_module, "CALL_SECONDS", 0.1)
    busy = actor.__ray_call__.remote(_busy, 1.0)
    with pytest.raises(QueueUnavailable, match="did not answer"):
        queue.stats()
    ray.get(busy, timeout=20)


def test_a_name_is_given_once(queue: RayJobQueue) -> None:
    with pytest.raises(QueueRefused, match="already, of another run") as refused:
        start_ray_queue("queue", NAMESPACE, QueueLimits())
    assert "\n" not in str(refused.value)
    assert queue.term() is None


def test_a_queue_that_nobody_started_is_unavailable(ray_session: None) -> None:
    with pytest.raises(QueueUnavailable, match="no queue ray://elsewhere/queue"):
        join_ray_queue("queue", "elsewhere")
