"""The job queue: groups through it per second, and how long one takes from put to result.

One learner puts groups and takes their results, at most two batches ahead of what it consumed; one
worker leases and commits: a thread on the queue in memory, a process on Redis.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import redis

from bench.figure import Figure, figure
from bench.queue_worker import PEER_GROUP, PEER_RESULTS, PEER_WORK, RUN, score
from bench.timing import interleaved, timed
from rewardtune.transport.queue.job_queue import JobQueue, Term
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from tests.rewardtune.transport.redis_server import RedisServer, redis_binaries, running

PEER = "a bare loop of XADD, XREADGROUP and XACK with redis-py"
BODY = bytes(range(256)) * 16
BATCH = 64
TERM = Term(number=1, spec=b"", capacity=2 * BATCH)


def queues(*, is_quick: bool) -> Iterator[Figure]:
    yield from queue_figures(
        num_batches=4 if is_quick else 16,
        num_singles=200 if is_quick else 2000,
        num_rounds=3 if is_quick else 9,
    )


def queue_figures(*, num_batches: int, num_singles: int, num_rounds: int) -> Iterator[Figure]:
    """Groups of 4 kB.

    Args:
        num_batches: of ``BATCH`` groups, in one round.
        num_singles: groups that are put and waited for alone, for the percentiles.
    """
    num = num_batches * BATCH
    with memory_way() as memory:
        ways = {"ours": timed(lambda: memory.pass_batches(num_batches))}
        seconds = interleaved(ways, num_rounds=num_rounds)
    yield figure("queue.memory.groups_per_second", seconds["ours"], amount=num, unit="groups/s")
    name, binary = sorted(redis_binaries().items())[-1]
    peer = f"{PEER}, on {name} too"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(running(binary, Path(folder)))
        ours = stack.enter_context(redis_way(server))
        plain = stack.enter_context(plain_way(server))
        seconds = interleaved(
            {
                "ours": timed(lambda: ours.pass_batches(num_batches)),
                "peer": timed(lambda: plain.pass_batches(num_batches)),
            },
            num_rounds=num_rounds,
        )
        alone_N, plain_N = np.array(
            [(ours.single_seconds(), plain.single_seconds()) for _ in range(num_singles)]
        ).T
    yield figure(
        "queue.redis.groups_per_second",
        seconds["ours"],
        amount=num,
        unit="groups/s",
        peer=peer,
        peer_seconds=seconds["peer"],
    )
    for percent in (50, 99):
        yield figure(
            f"queue.redis.p{percent}_seconds",
            float(np.percentile(alone_N, percent)),
            peer=peer,
            peer_seconds=float(np.percentile(plain_N, percent)),
        )


class Channel(Protocol):
    """A way of having groups scored."""

    def put(self, ordinal: int) -> None: ...

    def take(self, ordinals: range) -> None:
        """Return when all have a result, which is forgotten then."""
        ...


class Learner:
    """Puts ordinals in order and takes their results."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next = 0

    def pass_batches(self, num: int) -> None:
        ahead = self._put(BATCH)
        for _ in range(num - 1):
            behind, ahead = ahead, self._put(BATCH)
            self._channel.take(behind)
        self._channel.take(ahead)

    def single_seconds(self) -> float:
        began = time.perf_counter()
        self._channel.take(self._put(1))
        return time.perf_counter() - began

    def _put(self, num: int) -> range:
        ordinals = range(self._next, self._next + num)
        self._next += num
        for ordinal in ordinals:
            self._channel.put(ordinal)
        return ordinals


class QueueChannel:
    """Through a job queue."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        queue.open_term(TERM, frontier=0)

    def put(self, ordinal: int) -> None:
        self._queue.put(TERM.number, ordinal, BODY)

    def take(self, ordinals: range) -> None:
        wanted = list(ordinals)
        while True:
            # Looking comes before waiting: the bell may have rung for these in an earlier wait.
            found = self._queue.results(TERM.number, wanted)
            wanted = [ordinal for ordinal in wanted if ordinal not in found]
            if not wanted:
                break
            self._queue.wait(TERM.number, timeout_seconds=1)
        self._queue.consume(TERM.number, before=ordinals.stop)


class PlainChannel:
    """Through two streams, with nothing that makes a group count once."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._seen: Any = "0-0"
        client.xgroup_create(PEER_WORK, PEER_GROUP, id="0", mkstream=True)

    def put(self, ordinal: int) -> None:
        self._client.xadd(PEER_WORK, {"ordinal": ordinal, "body": BODY})

    def take(self, ordinals: range) -> None:
        left = len(ordinals)
        while left > 0:
            read: Any = self._client.xread({PEER_RESULTS: self._seen}, count=left, block=1000)
            for _, entries in read:
                left -= len(entries)
                self._seen = entries[-1][0]
        # Both would grow for ever.
        self._client.xtrim(PEER_RESULTS, minid=self._seen, approximate=False)
        self._client.xtrim(PEER_WORK, maxlen=2 * BATCH, approximate=False)


@contextmanager
def memory_way() -> Iterator[Learner]:
    queue = MemoryJobQueue()
    learner = Learner(QueueChannel(queue))
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            score(queue)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield learner
    finally:
        is_over.set()
        worker.join()


@contextmanager
def redis_way(server: RedisServer) -> Iterator[Learner]:
    queue = RedisJobQueue.connect(server.url, run=RUN)
    try:
        learner = Learner(QueueChannel(queue))
        with worker_process(server, whose="ours"):
            yield learner
    finally:
        queue.close()


@contextmanager
def plain_way(server: RedisServer) -> Iterator[Learner]:
    with server.client() as client:
        learner = Learner(PlainChannel(client))
        with worker_process(server, whose="peer"):
            yield learner


@contextmanager
def worker_process(server: RedisServer, *, whose: str) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.queue_worker", server.url, whose]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
