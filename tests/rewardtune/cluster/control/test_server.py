"""Control over a real server and client, against a driver that remembers."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import pytest

from protos.v1 import control_pb2 as pb
from protos.v1.control_pb2_grpc import ControlStub
from rewardtune.cluster.control.client import ControlClient, Refused
from rewardtune.cluster.control.messages import MAX_LINE, MAX_TRACEBACK
from rewardtune.cluster.control.record import (
    DRIVER_NAME,
    NotLive,
    read_driver_record,
    write_driver_record,
)
from rewardtune.cluster.control.server import MAX_LETTERS, ControlServer
from rewardtune.cluster.driver.cluster import Cluster
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.driver.fleet import Placement
from rewardtune.transport.queue.job_queue import Failure, FailureKind, QueueLimits
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.wire import MAX_MESSAGE_BYTES
from tests.rewardtune.steered import NOT_BEGUN, STATUS, FakeDriver, letter
from tests.rewardtune.tiny_run import SILENT, tiny_tune

LOOPBACK = "127.0.0.1"


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def server(driver: FakeDriver, tmp_path: Path) -> Iterator[ControlServer]:
    with ControlServer(driver, directory=tmp_path, host=LOOPBACK) as server:
        yield server


@pytest.fixture
def client(server: ControlServer, tmp_path: Path) -> Iterator[ControlClient]:
    with ControlClient.of_run(tmp_path) as client:
        yield client


@pytest.mark.parametrize("status", [STATUS, NOT_BEGUN], ids=["running", "starting"])
def test_a_status_arrives_as_the_driver_gives_it(
    client: ControlClient, driver: FakeDriver, status: dict[str, object]
) -> None:
    driver.now = {**status, "not_on_the_wire": object()}
    arrived = client.status()
    not_there_yet = dict.fromkeys(arrived.keys() - status.keys())
    assert arrived == {**status, **not_there_yet}
    json.dumps(arrived)


def test_a_real_driver_can_be_served(tmp_path: Path) -> None:
    config = tiny_tune(tmp_path / "data", tmp_path / "policy", tmp_path / "run")
    placement = Placement(
        settings="{}",
        secret_settings="{}",
        num_learners=1,
        num_samplers=1,
        num_reward_workers=2,
        num_cpus={},
        num_gpus={},
    )
    driver = Driver(
        config,
        SILENT,
        cluster=cast("Cluster", None),  # it is never run
        queue=MemoryJobQueue(QueueLimits()),
        placement=placement,
    )
    directory = config.operations.directory
    with (
        ControlServer(driver, directory=directory, host=LOOPBACK),
        ControlClient.of_run(directory) as client,
    ):
        assert client.status() == driver.status()
        assert client.explain(0)["whereabouts"] == "not_due"
        assert client.dead_letters() == ([], 0)
        assert client.scale_reward_workers(3) == 2
        with pytest.raises(Refused, match=r"0 inside Ray needs cluster\.queue"):
            client.scale_reward_workers(0)
        with pytest.raises(Refused, match="can be 0 to 1000, got 1001"):
            client.scale_reward_workers(1001)


def test_commands_reach_the_driver_in_order(client: ControlClient, driver: FakeDriver) -> None:
    client.pause()
    client.checkpoint()
    client.resume()
    assert client.scale_reward_workers(4) == 2
    client.drain()
    assert driver.told == [("pause", True), "checkpoint", ("pause", False), ("scale", 4), "drain"]


def test_what_the_driver_refuses_is_told_in_its_own_words(client: ControlClient) -> None:
    with pytest.raises(Refused, match="^only 4 fit, got 5$"):
        client.scale_reward_workers(5)
    with pytest.raises(Refused, match="got -1"):
        client.explain(-1)


def test_a_group_is_explained(client: ControlClient, driver: FakeDriver) -> None:
    assert client.explain(2**40) == {
        "ordinal": 2**40,
        "whereabouts": "leased",
        "batch": 2**37,
        "policy_version": 2,
        "detail": "a reward worker has it",
    }
    driver.is_queue_away = True
    with pytest.raises(NotLive, match="^the queue is away: no answer$"):
        client.explain(0)


def test_dead_letters_arrive_the_newest_of_them(client: ControlClient, driver: FakeDriver) -> None:
    driver.letters = [letter(ordinal) for ordinal in range(MAX_LETTERS + 7)]
    letters, total = client.dead_letters()
    assert total == MAX_LETTERS + 7
    assert [each["ordinal"] for each in letters] == list(range(7, MAX_LETTERS + 7))
    assert letters[0]["example"] is None
    assert [each["kind"] for each in letters[0]["failures"]] == ["exception", "crash"]
    (last,), _ = client.dead_letters(max_letters=1)
    assert last["ordinal"] == MAX_LETTERS + 6


def test_the_longest_dead_letters_fit_into_a_message(
    client: ControlClient, driver: FakeDriver
) -> None:
    failure = Failure(FailureKind.EXCEPTION, "ü" * 2**16, "\U0001f4a5" * 2**16)
    driver.letters = [
        replace(letter(ordinal, body=b"x" * MAX_MESSAGE_BYTES), failures=(failure,) * 9)
        for ordinal in range(MAX_LETTERS)
    ]
    letters, total = client.dead_letters()
    assert total == MAX_LETTERS and 0 < len(letters) < MAX_LETTERS
    assert letters[-1]["ordinal"] == MAX_LETTERS - 1
    told = letters[-1]["failures"][-1]
    assert (len(told["message"]), len(told["traceback"])) == (MAX_LINE, MAX_TRACEBACK)


def test_driver_json_is_for_the_owner_alone_and_goes_with_the_server(
    driver: FakeDriver, tmp_path: Path
) -> None:
    directory = tmp_path / "new" / "run"
    with ControlServer(driver, directory=directory, host=LOOPBACK) as server:
        mode = (directory / DRIVER_NAME).stat().st_mode
        assert stat.S_IMODE(mode) == stat.S_IRUSR | stat.S_IWUSR
        assert read_driver_record(directory) == server.record
        assert server.record.pid == os.getpid()
    assert list(directory.iterdir()) == []
    with pytest.raises(NotLive, match="no driver.json"):
        ControlClient.of_run(directory)


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)])
def test_nobody_without_the_key_is_heard(
    server: ControlServer, driver: FakeDriver, metadata: tuple[tuple[str, str], ...]
) -> None:
    with (
        grpc.insecure_channel(server.record.address) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        ControlStub(channel).Drain(pb.DrainRequest(), timeout=10, metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert driver.told == []


def test_a_call_for_another_run_at_the_same_port_does_nothing(
    server: ControlServer, driver: FakeDriver, tmp_path: Path
) -> None:
    stale = replace(server.record, key="of an earlier start")
    write_driver_record(tmp_path / "other", stale)
    with (
        ControlClient.of_run(tmp_path / "other") as client,
        pytest.raises(NotLive, match="another one by now"),
    ):
        client.drain()
    assert driver.told == []


def test_a_driver_that_was_killed_is_known_to_be_dead(
    server: ControlServer, tmp_path: Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_driver_record(tmp_path / "run", replace(server.record, pid=ended.pid))
    with pytest.raises(NotLive, match=f"process {ended.pid}, has died"):
        ControlClient.of_run(tmp_path / "run")


def test_a_driver_out_of_reach_is_one_line(driver: FakeDriver, tmp_path: Path) -> None:
    server = ControlServer(driver, directory=tmp_path, host=LOOPBACK)
    record = server.record
    server.close()
    with (
        ControlClient(record.address, key=record.key) as client,
        pytest.raises(NotLive, match=f"no driver answers at {record.address}") as error,
    ):
        client.status()
    assert "\n" not in str(error.value)


def test_a_driver_json_of_another_version_is_one_line(tmp_path: Path) -> None:
    (tmp_path / DRIVER_NAME).write_text('{"port": 1}')
    with pytest.raises(NotLive, match="another version wrote it"):
        ControlClient.of_run(tmp_path)


def test_a_start_that_came_to_nothing_leaves_the_live_run_reachable(
    server: ControlServer, driver: FakeDriver, tmp_path: Path
) -> None:
    mistaken = FakeDriver()
    mistaken.now = dict(NOT_BEGUN)
    with ControlServer(mistaken, directory=tmp_path, host=LOOPBACK):
        assert read_driver_record(tmp_path) != server.record
    assert read_driver_record(tmp_path) == server.record


def test_a_driver_that_was_succeeded_leaves_its_successor_alone(
    driver: FakeDriver, tmp_path: Path
) -> None:
    old = ControlServer(driver, directory=tmp_path, host=LOOPBACK)
    with ControlServer(driver, directory=tmp_path, host=LOOPBACK) as new:
        old.close()
        assert read_driver_record(tmp_path) == new.record


def test_an_address_of_another_machine_is_one_line(driver: FakeDriver, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot listen on 192.0.2.1: set cluster.bind"):
        ControlServer(driver, directory=tmp_path, host="192.0.2.1")
    assert list(tmp_path.iterdir()) == []
