"""What the tests of the queue on Redis share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rewardtune.transport.queue.job_queue import (
    Failure,
    FailureKind,
    Job,
    QueueLimits,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from tests.rewardtune.transport.redis_server import RedisServer

TERM = Term(number=3, spec=b"spec", capacity=8)
BOOM = Failure(FailureKind.CRASH, "signal 11")
RECORD = WorkerRecord(
    worker="worker",
    reward_digest="d",
    dataset_digest="e",
    state="ready",
    num_scorers=2,
    busy=1,
    metrics_address="127.0.0.1:9100",
    message="grün",
)


@contextmanager
def connected(
    server: RedisServer, *, url: str = "", run: str = "run", **limits: float
) -> Iterator[RedisJobQueue]:
    queue = RedisJobQueue.connect(
        url or server.url,
        run=run,
        limits=QueueLimits(**limits),  # type: ignore[arg-type]
    )
    try:
        yield queue
    finally:
        queue.close()


def lease(queue: RedisJobQueue, worker: str = "worker", *, timeout_seconds: float = 10) -> Job:
    (job,) = queue.lease(worker, reward_digest="d", max_jobs=1, timeout_seconds=timeout_seconds)
    return job


def until(is_so: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)
