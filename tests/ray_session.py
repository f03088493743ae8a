"""One Ray for all tests of a process: starting it takes longer than most of them."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.node import Node

NUM_CPUS = 8
NUM_FAKE_GPUS = 4
"""No hardware is needed: Ray only counts them."""
OBJECT_STORE_BYTES = 100_000_000
TOO_SLOW = "The current node timed out during startup"
"""What Ray says after 30 seconds, which it does not let anybody change."""


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A cluster of one node on the loopback interface. Actors are told apart by namespaces."""
    # Otherwise Ray hides the GPUs that it only imagines from actors that ask for none, and warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A short path, since unix sockets in it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        start_patiently(lambda attempt: _start(Path(folder) / str(attempt)))
        node: Any = ray._private.worker._global_node
        processes = [started.process for each in node.all_processes.values() for started in each]
        try:
            yield
        finally:
            ray.shutdown()
            # Ray kills its processes without waiting for them, of which Python would warn later.
            for process in processes:
                process.wait(timeout=30)


def start_patiently(start: Callable[[int], None]) -> None:
    """Call ``start`` with 0, and if a busy machine was too slow for Ray once more, with 1."""
    try:
        start(0)
    except Exception as error:
        if TOO_SLOW not in str(error):
            raise
        _end_half_started(error)
    else:
        return
    start(1)


def _start(folder: Path) -> None:
    ray.init(
        num_cpus=NUM_CPUS,
        num_gpus=NUM_FAKE_GPUS,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
    )


def _end_half_started(error: Exception) -> None:
    """End the processes of nodes that failed with this error, and wait for them.

    Ray forgets such a node and leaves its processes; nobody but the error knows it any more.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node: Any = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
