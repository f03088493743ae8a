from __future__ import annotations

from pathlib import Path

import pytest

from tests.reward_workers.scoring_run import write_tiny_data
from transport.job_queue import JobQueue, QueueLimits
from transport.memory_queue import MemoryJobQueue


@pytest.fixture
def queue() -> JobQueue:
    """One that gives a job up after two crashes."""
    return MemoryJobQueue(limits=QueueLimits(max_crashes=2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")
