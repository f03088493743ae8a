"""Workers as plain processes on a real Redis."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reward_workers.config import RewardWorkerConfig
from reward_workers.service import serve
from reward_workers.worker import DRAINED
from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits, QueueUnavailable
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.wire import group_to_bytes
from tests.reward_workers.scoring_run import (
    USER_FOLDER,
    by_token_spec,
    eventually,
    group_of,
    open_term,
    results,
    spec_of,
)
from tests.reward_workers.user_folder.by_token import WAIT
from tests.reward_workers.worker_process import (
    ROOT,
    anonymous_megabytes,
    is_alive,
    worker_process,
)
from tests.rewardtune.tiny_run import write_tiny_digits
from tests.rewardtune.transport.redis_server import RedisServer, redis_binaries, running

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("redis")
    with running(redis_binaries()["redis-6.2"], folder) as server:
        yield server


@pytest.fixture
def queue(server: RedisServer) -> Iterator[JobQueue]:
    server.wipe()
    queue = RedisJobQueue.connect(server.url, run="test", limits=QueueLimits(lease_seconds=1.0))
    yield queue
    queue.close()


CONFIG = '{"lease_seconds": 1.0, "heartbeat_seconds": 0.2}'


def test_a_worker_killed_with_a_group_in_hand_takes_its_scorers_along_and_loses_nothing(
    server: RedisServer, queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    for ordinal in range(2):
        queue.put(0, ordinal, group_of(ordinal, WAIT, ordinal, 3))
    with worker_process(server.url, data, config=CONFIG) as first:
        eventually((tmp_path / "begun-0").exists, "the first group being scored")
        eventually(lambda: queue.stats().leased == 2, "and the second fetched")
        scorers = first.scorers
        assert len(scorers) == 1
        first.process.kill()
        first.process.wait()
        eventually(lambda: not any(map(is_alive, scorers)), "its scorers' end", seconds=1.0)
    for number in range(2):
        (tmp_path / f"go-{number}").touch()
    with worker_process(server.url, data, config=CONFIG):
        found = results(queue, range(2))
    assert found == {0: [WAIT + 3.0, WAIT + 4.0], 1: [WAIT + 4.0, WAIT + 5.0]}
    stats = queue.stats()
    assert (stats.redeliveries, stats.duplicate_commits, stats.results) == (2, 0, 2)
    assert not any(stats.failures.values())


def test_sigterm_drains_and_probes_see_it(
    server: RedisServer, queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    for ordinal in range(2):
        queue.put(0, ordinal, group_of(ordinal, WAIT, ordinal, 3))
    port = free_port()
    with worker_process(
        server.url, data, config=CONFIG, metrics_port=0, health_port=port
    ) as worker:
        worker.eventually_ready(queue)
        assert health(port) == "SERVING"
        eventually((tmp_path / "begun-0").exists, "the first group being scored")
        eventually(lambda: queue.stats().leased == 2, "and the second fetched")
        (record,) = queue.workers()
        page = fetch(f"http://{record.metrics_address}/metrics")
        assert 'rewardtune_reward_worker_scorers{state="busy"} 1.0' in page
        assert 'rewardtune_reward_worker_state{state="ready"} 1.0' in page
        worker.process.send_signal(signal.SIGTERM)
        eventually(lambda: health(port) == "NOT_SERVING", "the probe's answer")
        eventually(lambda: queue.stats().backlog == 1, "the second group given back")
        (tmp_path / "go-0").touch()
        assert worker.process.wait(timeout=30) == DRAINED, worker.log.read_text()
    assert list(queue.results(0, range(2))) == [0]
    assert queue.workers() == []
    assert queue.stats().redeliveries == 0


def test_a_worker_outlives_a_redis_that_is_killed_and_comes_back_empty(
    server: RedisServer, queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    spec = by_token_spec(data, folder=str(tmp_path))
    open_term(queue, spec)
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    with worker_process(server.url, data, config=CONFIG):
        eventually((tmp_path / "begun-0").exists, "the group being scored")
        server.kill()
        (tmp_path / "go-0").touch()
        server.start()
        with pytest.raises(QueueUnavailable):
            queue.put(0, 1, group_of(1, 1, 2, 3))
        open_term(queue, spec)  # as the learner does after a reconnect
        queue.put(0, 1, group_of(1, 1, 2, 3))
        # It was scored for a queue that is no more, and committed to the one that is.
        assert results(queue, range(2)) == {0: [WAIT + 3.0, WAIT + 4.0], 1: [6.0, 7.0]}


def test_a_detection_worker_is_small_and_starts_without_torch_and_ray(
    server: RedisServer, queue: JobQueue, tmp_path: Path
) -> None:
    data = write_tiny_digits(tmp_path / "digits") / "train"
    spec = spec_of(data, "detection", {"max_boxes": 3}, input_size=32)
    open_term(queue, spec)
    megabytes = {}
    for round_number, num_scorers in enumerate((1, 2)):
        config = f'{{"lease_seconds": 1.0, "num_scorers": {num_scorers}}}'
        with worker_process(server.url, data, config=config) as worker:
            worker.eventually_ready(queue)
            ordinals = range(100 * round_number, 100 * (round_number + 1))
            for ordinal in ordinals:
                group = spec.golden[ordinal % 4].group()
                queue.put(0, ordinal, group_to_bytes(replace(group, ordinal=ordinal)))
            found = results(queue, ordinals)
            assert all(found[o] == list(spec.golden[o % 4].rewards) for o in ordinals)
            pids = [worker.pid, *worker.scorers]
            assert len(pids) == 1 + num_scorers
            for pid in pids:
                assert loaded_libraries(pid).isdisjoint({"torch", "ray"})
            megabytes[num_scorers] = sum(map(anonymous_megabytes, pids))
    assert megabytes[1] < 300, megabytes
    assert megabytes[2] - megabytes[1] <= 150, megabytes


def test_a_worker_outside_takes_a_custom_reward_from_a_folder_that_it_is_told_of(
    server: RedisServer, queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    shutil.copytree(USER_FOLDER, code, ignore=shutil.ignore_patterns("__pycache__"))
    open_term(queue, spec_of(data, "by_token", {}, reward="values_by_token:largest"))
    queue.put(0, 0, group_of(0, 1, 2, 3))
    command = ["reward-worker", "--queue", server.url, "--run", "test", "--data", str(data)]
    program = [sys.executable, "-m", "rewardtune", *command, "--lease-seconds", "1"]
    with subprocess.Popen([*program, "--code", str(code)], cwd=ROOT) as worker:
        try:
            assert results(queue, [0]) == {0: [3.0, 4.0]}
        finally:
            worker.kill()


def test_what_cannot_be_reached_or_had_is_an_error_at_once(server: RedisServer, data: Path) -> None:
    config = RewardWorkerConfig()
    with pytest.raises(ValueError, match="'http://x' names no job queue"):
        serve(config, queue_url="http://x", run="test", data_path=data)
    with pytest.raises(QueueUnavailable):
        serve(config, queue_url=f"redis://127.0.0.1:{free_port()}", run="test", data_path=data)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port}.*--health-port"):
            serve(config, queue_url=server.url, run="test", data_path=data, health_port=port)
        with pytest.raises(OSError, match="cannot show metrics"):
            serve(config, queue_url=server.url, run="test", data_path=data, metrics_port=port)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


def health(port: int) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        text: str = response.read().decode()
    return text


def loaded_libraries(pid: int) -> set[str]:
    """Packages of whose compiled parts the process has mapped any."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    found = {
        line.split(f"{os.sep}site-packages{os.sep}")[1]
        for line in maps.splitlines()
        if "site-packages" in line
    }
    return {path.split(os.sep)[0] for path in found}
