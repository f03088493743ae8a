"""Every implementation of the job queue, empty, for tests of what all of them promise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray

from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.queue.ray_queue import RayJobQueue, start_ray_queue
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from tests.rewardtune.transport.redis_server import RedisServer, redis_binaries, running

LONG = QueueLimits(lease_seconds=60.0, max_deliveries=3)
SHORT = QueueLimits(lease_seconds=0.2, max_deliveries=3)
REDIS_BINARIES = redis_binaries()
IMPLEMENTATIONS = [
    "memory",
    # One Ray for all tests: that of those that run alone.
    pytest.param("ray", marks=pytest.mark.alone),
    *sorted(REDIS_BINARIES),
]

Maker = Callable[[QueueLimits], AbstractContextManager["QueueUnderTest"]]


@dataclass(frozen=True, slots=True)
class QueueUnderTest:
    """A queue that knows no term yet, and a way to let its time pass."""

    queue: JobQueue
    limits: QueueLimits
    let_time_pass: Callable[[], None]
    """A small part of a lease."""

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline
            self.let_time_pass()

    def expire_leases(self) -> None:
        """Return when no lease is running."""
        self.until(lambda: self.queue.stats().leased == 0)


@contextmanager
def _memory(limits: QueueLimits) -> Iterator[QueueUnderTest]:
    now = [0.0]

    def tick() -> None:
        now[0] += limits.lease_seconds / 4
        time.sleep(0.001)  # to let other threads run

    yield QueueUnderTest(MemoryJobQueue(limits, clock=lambda: now[0]), limits, tick)


def _poll() -> None:
    time.sleep(0.005)


@pytest.fixture(scope="session")
def ray_queue(ray_session: None) -> RayJobQueue:
    return start_ray_queue("queue", "tests-transport", LONG)


def renew(queue: RayJobQueue, limits: QueueLimits) -> None:
    """Empty the actor as if it had been started anew, which would take a second or more."""
    actor: Any = queue._actor
    ray.get(actor.__ray_call__.remote(_begin_anew, limits), timeout=60)


def _begin_anew(actor: Any, limits: QueueLimits) -> None:
    actor.__init__(limits)


@pytest.fixture(scope="session")
def redis_server_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], RedisServer]]:
    """One server of each binary, started when first asked for."""
    servers: dict[str, RedisServer] = {}
    with ExitStack() as stack:

        def server(name: str) -> RedisServer:
            if name not in servers:
                folder: Path = tmp_path_factory.mktemp(name)
                servers[name] = stack.enter_context(running(REDIS_BINARIES[name], folder))
            return servers[name]

        yield server


@pytest.fixture(params=sorted(REDIS_BINARIES))
def redis_server(
    request: pytest.FixtureRequest, redis_server_of: Callable[[str], RedisServer]
) -> RedisServer:
    """Empty."""
    server = redis_server_of(request.param)
    server.wipe()
    return server


@pytest.fixture(params=sorted(REDIS_BINARIES))
def redis_binary(request: pytest.FixtureRequest) -> str:
    """For tests that need a server of their own."""
    return REDIS_BINARIES[request.param]


@pytest.fixture(params=IMPLEMENTATIONS)
def make_queue(request: pytest.FixtureRequest) -> Maker:
    if request.param == "memory":
        return _memory
    if request.param == "ray":
        hosted: RayJobQueue = request.getfixturevalue("ray_queue")

        @contextmanager
        def make_ray(limits: QueueLimits) -> Iterator[QueueUnderTest]:
            renew(hosted, limits)
            yield QueueUnderTest(hosted, limits, _poll)

        return make_ray
    server: RedisServer = request.getfixturevalue("redis_server_of")(request.param)

    @contextmanager
    def make_redis(limits: QueueLimits) -> Iterator[QueueUnderTest]:
        server.wipe()
        queue = RedisJobQueue.connect(server.url, run="run", limits=limits)
        try:
            yield QueueUnderTest(queue, limits, _poll)
        finally:
            queue.close()

    return make_redis


@pytest.fixture
def queue(make_queue: Maker) -> Iterator[JobQueue]:
    """Leases last for as long as any test: what is leased stays leased."""
    with make_queue(LONG) as made:
        yield made.queue


@pytest.fixture
def expiring(make_queue: Maker) -> Iterator[QueueUnderTest]:
    """Leases end while the test looks on, and at any time: it must hold however slow it is."""
    with make_queue(SHORT) as made:
        yield made
