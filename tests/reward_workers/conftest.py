from __future__ import annotations

from pathlib import Path

import pytest

from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from tests.reward_workers.scoring_run import write_tiny_data


@pytest.fixture
def queue() -> JobQueue:
    """One that gives a job up after two crashes."""
    return MemoryJobQueue(limits=QueueLimits(max_crashes=2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny_data(tmp_path / "data")
