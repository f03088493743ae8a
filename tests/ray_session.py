"""One Ray for all tests of a process: starting it takes longer than most of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import ray

NUM_CPUS = 8
NUM_FAKE_GPUS = 4
"""No hardware is needed: Ray only counts them."""
OBJECT_STORE_BYTES = 100_000_000


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A cluster of one node on the loopback interface. Actors are told apart by namespaces."""
    # Otherwise Ray hides the GPUs that it only imagines from actors that ask for none, and warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A short path, since unix sockets in it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=NUM_CPUS,
            num_gpus=NUM_FAKE_GPUS,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        node: Any = ray._private.worker._global_node
        processes = [started.process for each in node.all_processes.values() for started in each]
        try:
            yield
        finally:
            ray.shutdown()
            # Ray kills its processes without waiting for them, of which Python would warn later.
            for process in processes:
                process.wait(timeout=30)
