"""The head of a Ray cluster of one node as its pod runs it: ``ray start --head --block``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class RayHead:
    process: subprocess.Popen[bytes]
    address: str
    """For ``RAY_ADDRESS``."""
    dashboard: str
    """For job submission, where the head has one."""
    log: Path
    folder: Path
    """Of its session: logs, packages, sockets."""


@contextlib.contextmanager
def ray_head(
    *, has_dashboard: bool = False, environment: Mapping[str, str] = _NOTHING
) -> Iterator[RayHead]:
    """On the loopback interface, with this Python's commands on its path; ended by its own pid.

    Args:
        environment: over that of the tests.
    """
    ports = {name: free_port() for name in ("gcs", "client", "dashboard", "agent", "agent-grpc")}
    # Short, since unix sockets in it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "head.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *(f"--port={ports['gcs']}", f"--ray-client-server-port={ports['client']}"),
                    *("--num-cpus=4", "--object-store-memory=100000000", f"--temp-dir={folder}"),
                    *("--node-ip-address=127.0.0.1", "--disable-usage-stats"),
                    f"--include-dashboard={str(has_dashboard).lower()}",
                    *("--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}"),
                    f"--dashboard-agent-listen-port={ports['agent']}",
                    f"--dashboard-agent-grpc-port={ports['agent-grpc']}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **shell_environment(),
                    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                    **environment,
                },
            )
        try:
            address = f"127.0.0.1:{ports['gcs']}"
            dashboard = f"http://127.0.0.1:{ports['dashboard']}"
            yield RayHead(process, address, dashboard, log, Path(folder))
        finally:
            # Whatever is left is in the group of the head, which this process started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def shell_environment() -> dict[str, str]:
    """In which ``python`` is this one, and finds this checkout."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
