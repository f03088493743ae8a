"""``python -m tests.deploy.fake_fleet``: processes that report every metric there is.

One process per role, whose figures move as those of a run would; the driver prints its ``/sd`` URL
and all of them end with it.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product

from rewardtune.transport.telemetry.exposition import Exposition, Target, port_range
from rewardtune.transport.telemetry.meter import Telemetry
from rewardtune.transport.telemetry.metric_table import METRICS, Kind, Metric, Role

RUN = "fleet"
_OPEN_VALUES = {"component": "total", "metric": "mAP", "version": "0.1.0"}
_TICK_SECONDS = 0.2


def tick(telemetry: Telemetry, role: Role, *, turn: int) -> None:
    """Let every metric of the role be what it could be after so many turns of a healthy run."""
    for metric in METRICS.values():
        if role not in metric.roles or metric.name == "build_info":
            continue
        for labels in _label_sets(metric):
            _report(telemetry, metric, labels, turn)


def _label_sets(metric: Metric) -> Iterator[Mapping[str, str]]:
    values = [
        each if each is not None else (_OPEN_VALUES[label],)
        for label, each in metric.labels.items()
    ]
    for chosen in product(*values):
        yield dict(zip(metric.labels, chosen, strict=True))


def _report(telemetry: Telemetry, metric: Metric, labels: Mapping[str, str], turn: int) -> None:
    match metric.kind:
        case Kind.COUNTER if metric.is_mirrored:
            telemetry.set_total(metric.name, turn, **labels)
        case Kind.COUNTER:
            telemetry.count(metric.name, 1, **labels)
        case Kind.HISTOGRAM:
            telemetry.observe(metric.name, 0.05 * (1 + turn % 3), **labels)
        case Kind.GAUGE:
            is_current = labels.get("state", "running") in ("running", "ready", "busy")
            telemetry.set(metric.name, float(is_current), **labels)


def serve(role: Role) -> None:
    """Report until the end of standard input; the first line written is host:port."""
    telemetry = Telemetry(role)
    ended = threading.Event()
    others: list[Target] = []
    with Exposition(
        telemetry.exposition,
        ports=port_range(0, 1),
        targets=(lambda: others) if role is Role.DRIVER else None,
    ) as server:
        others.append(Target(server.address, role, RUN))
        print(server.address, flush=True)
        threading.Thread(target=_read, args=(others, ended), daemon=True).start()
        turn = 0
        while not ended.wait(_TICK_SECONDS):
            turn += 1
            tick(telemetry, role, turn=turn)


def _read(others: list[Target], ended: threading.Event) -> None:
    for line in sys.stdin:
        address, role = line.split()
        others.append(Target(address, role, RUN))
    ended.set()


@contextmanager
def running_fleet() -> Iterator[str]:
    """The URL of a driver's ``/sd`` that lists one process of every role."""
    fleet: dict[Role, subprocess.Popen[str]] = {}
    try:
        for role in Role:
            fleet[role] = subprocess.Popen(
                [sys.executable, "-m", "tests.deploy.fake_fleet", role],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        addresses = {}
        for role, process in fleet.items():
            assert process.stdout is not None
            addresses[role] = process.stdout.readline().strip()
        driver = fleet[Role.DRIVER]
        assert driver.stdin is not None
        for role, address in addresses.items():
            if role is not Role.DRIVER:
                print(address, role, file=driver.stdin, flush=True)
        yield f"http://{addresses[Role.DRIVER]}/sd"
    finally:
        for process in fleet.values():
            process.communicate(timeout=30)  # closes its standard input


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(Role(sys.argv[1]))
    else:
        with running_fleet() as url:
            print(url, flush=True)
            sys.stdin.read()
