"""A reward worker in a process of its own, as the command line starts it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rewardtune.transport.queue.job_queue import JobQueue
from tests.reward_workers.scoring_run import USER_FOLDER, eventually

ROOT = Path(__file__).parents[2]

PROGRAM = """
import logging, sys
from pathlib import Path
from reward_workers.config import RewardWorkerConfig
from reward_workers.service import serve

logging.basicConfig(level=logging.INFO)
sys.path.append({user_folder!r})
sys.exit(serve(
    RewardWorkerConfig.model_validate_json({config!r}),
    queue_url={url!r}, run="test", data_path=Path({data!r}),
    metrics_port={metrics_port}, health_port={health_port},
))
"""


@dataclass(frozen=True)
class WorkerProcess:
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def scorers(self) -> list[int]:
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def eventually_ready(self, queue: JobQueue) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return any(
                f"-{self.pid}-" in record.worker and record.state == "ready"
                for record in queue.workers()
            )

        eventually(is_ready, "a worker that is ready")


@contextmanager
def worker_process(
    url: str,
    data: Path,
    *,
    config: str = "{}",
    metrics_port: int | None = None,
    health_port: int | None = None,
) -> Iterator[WorkerProcess]:
    program = PROGRAM.format(
        user_folder=str(USER_FOLDER),
        config=config,
        url=url,
        data=str(data),
        metrics_port=metrics_port,
        health_port=health_port,
    )
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=log, stderr=log
        )
        try:
            yield WorkerProcess(process, Path(log.name))
        finally:
            process.kill()
            process.wait()


def is_alive(pid: int) -> bool:
    """False for one that has ended, also while nobody has asked how."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def anonymous_megabytes(pid: int) -> float:
    """Its share of memory that no file is behind."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None, rollup
    return int(found[1]) / 1024
