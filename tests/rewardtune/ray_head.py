"""A Ray cluster of one node with a dashboard, for tests of jobs, and the run that a job drives."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rewardtune.cluster.control.client import ControlClient
from rewardtune.cluster.control.record import NotLive

PATIENCE_SECONDS = 90.0
"""Longer than any busy machine needs."""
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class RayHead:
    dashboard: str
    """Its address."""
    folder: Path
    """Of its session: logs, packages, sockets."""


@contextlib.contextmanager
def ray_head(environment: Mapping[str, str] = _NOTHING) -> Iterator[RayHead]:
    """On the loopback interface; ended by its own pid.

    Args:
        environment: over that of the tests.
    """
    ports = {name: free_port() for name in ("dashboard", "agent", "agent-grpc", "client")}
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "head.log"
        with log.open("w") as output:
            head = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--port=0", "--num-cpus=4", "--object-store-memory=100000000"),
                    *("--include-dashboard=true", "--dashboard-host=127.0.0.1"),
                    f"--dashboard-port={ports['dashboard']}",
                    f"--dashboard-agent-listen-port={ports['agent']}",
                    f"--dashboard-agent-grpc-port={ports['agent-grpc']}",
                    f"--ray-client-server-port={ports['client']}",
                    *("--disable-usage-stats", f"--temp-dir={folder}"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                    **environment,
                },
            )
        address = f"http://127.0.0.1:{ports['dashboard']}"
        try:
            wait_until(lambda: answers(f"{address}/api/version"), log.read_text)
            yield RayHead(address, Path(folder))
        finally:
            head.send_signal(signal.SIGTERM)
            try:
                head.wait(timeout=20)
            finally:
                # Whatever is left is in the group of the head, which this test started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(head.pid, signal.SIGKILL)


def live_client(directory: Path, tell: Callable[[], str] = str) -> ControlClient:
    found: list[ControlClient] = []

    def is_live() -> bool:
        try:
            found.append(ControlClient.of_run(directory))
        except NotLive:
            return False
        return True

    wait_until(is_live, tell)
    return found[0]


def wait_until(is_so: Callable[[], bool], tell: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Also that it wants to know who asks."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as refused:
        return refused.code in (401, 403)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
