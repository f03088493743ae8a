"""What a process serves over HTTP, on which port, and that nothing is left of it."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from email.message import Message
from pathlib import Path

import pytest

from rewardtune.transport.telemetry.exposition import Exposition, Target, port_range, sd_document
from rewardtune.transport.telemetry.meter import Telemetry

ANY = range(1)


def get(url: str) -> tuple[int, Message, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.headers, answer.read()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_metrics_are_what_the_process_counted_until_then() -> None:
    worker = Telemetry("reward_worker")
    with Exposition(worker.exposition, ports=ANY) as server:
        worker.count("reward_worker_groups_total", 3, outcome="accepted")
        status, headers, body = get(f"http://{server.address}/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b'rewardtune_reward_worker_groups_total{outcome="accepted"} 3.0' in body.splitlines()


def test_visits_of_prometheus_are_known_from_those_of_others() -> None:
    with Exposition(bytes, ports=ANY, targets=list) as server:
        get(f"http://{server.address}/metrics")
        assert server.last_visit("/metrics") is None
        before = time.monotonic()
        request = urllib.request.Request(
            f"http://{server.address}/metrics", headers={"User-Agent": "Prometheus/2.42.0"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
        # It counts once the reply is out, which whoever has read it need not have waited for.
        while (seen := server.last_visit("/metrics")) is None:
            assert time.monotonic() < before + 10
        assert seen >= before
        assert server.last_visit("/sd") is None


def test_health_is_asked_for_every_time() -> None:
    trouble = ""
    with Exposition(bytes, ports=ANY, health=lambda: trouble) as server:
        status, _, body = get(f"http://{server.address}/healthz")
        assert (status, json.loads(body)) == (200, {"healthy": True})
        trouble = "the queue does\nnot answer"
        status, _, body = get(f"http://{server.address}/healthz")
    assert status == 503
    assert body.count(b"\n") == 1
    assert json.loads(body) == {"healthy": False, "reason": "the queue does not answer"}


def test_the_driver_lists_everyone_by_role_and_run() -> None:
    targets = [
        Target("127.0.0.1:9400", "driver", "digits"),
        Target("127.0.0.1:9401", "sampler", "digits"),
        Target("127.0.0.1:9402", "sampler", "digits"),
    ]
    with Exposition(bytes, ports=ANY, targets=lambda: targets) as server:
        status, headers, body = get(f"http://{server.address}/sd")
        targets.pop()
        _, _, later = get(f"http://{server.address}/sd")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == [
        {"targets": ["127.0.0.1:9400"], "labels": {"role": "driver", "run": "digits"}},
        {
            "targets": ["127.0.0.1:9401", "127.0.0.1:9402"],
            "labels": {"role": "sampler", "run": "digits"},
        },
    ]
    assert json.loads(later)[1]["targets"] == ["127.0.0.1:9401"]
    assert sd_document([]) == []


def test_only_the_driver_lists_and_an_unknown_page_names_the_known_ones() -> None:
    with Exposition(bytes, ports=ANY) as server:
        status, _, body = get(f"http://{server.address}/sd")
    assert status == 404
    assert json.loads(body) == {"reason": "here are /metrics, /healthz"}


def _fails() -> bytes:
    raise RuntimeError("half\na table")


@pytest.mark.parametrize("page", ["metrics", "healthz", "sd"])
def test_a_page_that_cannot_be_made_says_so_and_the_server_lives(page: str) -> None:
    def broken() -> str:
        return _fails().decode()

    with Exposition(_fails, ports=ANY, health=broken, targets=lambda: [broken()]) as server:  # type: ignore[list-item]
        for _ in range(2):
            status, _, body = get(f"http://{server.address}/{page}")
            assert (status, json.loads(body)) == (503, {"reason": "RuntimeError: half a table"})


def test_a_slow_scrape_holds_nobody_up() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> bytes:
        entered.set()
        assert leave.wait(30)
        return b""

    with Exposition(slow, ports=ANY) as server:
        scrape = threading.Thread(target=get, args=(f"http://{server.address}/metrics",))
        scrape.start()
        assert entered.wait(10)
        assert get(f"http://{server.address}/healthz")[0] == 200
        leave.set()
        scrape.join()


def test_a_taken_port_is_passed_over(taken: int) -> None:
    with Exposition(bytes, ports=range(taken, min(taken + 50, 65_536))) as server:
        assert taken < server.port < taken + 50


def test_when_every_port_is_taken_the_error_names_them_and_the_way_out(taken: int) -> None:
    with pytest.raises(OSError, match=f"{taken} to {taken} of 127.0.0.1.*cluster.metrics_port"):
        Exposition(bytes, ports=range(taken, taken + 1))


def test_an_address_of_another_machine_is_one_clear_error() -> None:
    with pytest.raises(OSError, match="cannot show metrics on 192.0.2.1: .*cluster.bind"):
        Exposition(bytes, ports=ANY, host="192.0.2.1")


def test_ports_come_from_the_fixed_range_or_from_the_system() -> None:
    assert port_range(9400, 100) == range(9400, 9500)
    assert list(port_range(0, 100)) == [0]


def test_only_loopback_listens_unless_asked() -> None:
    with Exposition(bytes, ports=ANY) as server:
        table = Path("/proc/net/tcp").read_text()
        listening = [line.split()[1] for line in table.splitlines()[1:] if line.split()[3] == "0A"]
        mine = [entry for entry in listening if int(entry.split(":")[1], 16) == server.port]
        assert mine == [f"0100007F:{server.port:04X}"]
        assert server.address == f"127.0.0.1:{server.port}"


def test_on_every_address_it_tells_others_one_that_they_can_reach() -> None:
    with Exposition(bytes, ports=ANY, host="0.0.0.0") as server:
        assert not server.address.startswith("0.0.0.0")
        assert get(f"http://{server.address}/healthz")[0] == 200


def test_after_close_the_port_is_free_and_no_thread_is_left() -> None:
    before = threading.active_count()
    server = Exposition(bytes, ports=ANY)
    port = server.port
    get(f"http://{server.address}/healthz")
    server.close()
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)
    with Exposition(bytes, ports=range(port, port + 1)) as again:
        assert again.port == port
    _eventually(lambda: threading.active_count() <= before)


def _eventually(holds: Callable[[], bool]) -> None:
    """Threads of answered requests end by themselves."""
    pause = threading.Event()
    for _ in range(1000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("not within 10 s")
