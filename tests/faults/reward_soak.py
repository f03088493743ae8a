"""``python -m tests.faults.reward_soak``: does a reward worker stay as it is over 50,000 groups?

A worker as a plain process with one scorer, on a Redis of its own, scores groups of detection on
digit scenes, new tokens each time. Along the way its memory and its scorer's are written down
(anonymous, PSS), and the processor time that both took. To show:

- memory over groups, after a tenth to warm up, has a least-squares slope whose 95% interval
  includes 0;
- the last tenth of the groups takes no more processor time than the first after that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.figure import EVIDENCE, machine
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.spec import make_spec
from rewardtune.datasets.digits.files import write_digits
from rewardtune.datasets.digits.scenes import SceneStyle
from rewardtune.datasets.frame import Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import Group, Published, View
from rewardtune.tasks.task import Task
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue, Term
from rewardtune.transport.wire import group_to_bytes
from tests.faults.redis_process import RedisProcess

OUTPUT = EVIDENCE / "faults" / "reward_soak.jsonl"
RUN = "soak"
NUM_SAMPLES = 8
NUM_SCENES = 512
SCENE_SIZE = 64
OPTIONS = {"max_boxes": 10}
"""As the digits' configs have them."""
CAPACITY = 200
WARM_UP = 0.1
_TICK = os.sysconf("SC_CLK_TCK")

WORKER = """
import sys
from pathlib import Path
from reward_workers.config import RewardWorkerConfig
from reward_workers.service import serve

url, data = sys.argv[1:]
config = RewardWorkerConfig(prefetch=32)
sys.exit(serve(config, queue_url=url, run={run!r}, data_path=Path(data)))
"""


@dataclass(frozen=True, slots=True)
class Look:
    """One moment of worker and scorer together."""

    groups: int
    worker_kilobytes: int
    scorer_kilobytes: int
    core_seconds: float
    """Processor time since both began."""

    @property
    def kilobytes(self) -> int:
        return self.worker_kilobytes + self.scorer_kilobytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the looks come to."""

    groups: int
    kilobytes_first: int
    kilobytes_last: int
    slope: float
    """Bytes per group."""
    slope_low: float
    slope_high: float
    """The slope's 95% interval."""
    is_flat: bool
    """The interval includes 0."""
    groups_per_core_second_first: float
    groups_per_core_second_last: float
    throughput_ratio: float
    """Last tenth over first."""
    machine: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.reward_soak")
    parser.add_argument("--groups", type=int, default=60_000)
    parser.add_argument("--every", type=int, default=600, help="groups from one look to the next")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        redis = RedisProcess(Path(folder) / "redis")
        try:
            looks = list(_looks(redis.url, Path(folder), num=told.groups, every=told.every))
        finally:
            redis.kill()
    verdict = judged(looks)
    lines = [*(json.dumps(asdict(look)) for look in looks), json.dumps(asdict(verdict))]
    told.output.write_text("".join(f"{line}\n" for line in lines))
    print(lines[-1])
    if not verdict.is_flat:
        sys.exit("the worker's memory grows: the slope's interval does not include 0")


def judged(looks: Sequence[Look]) -> Verdict:
    """Fit the looks after warming up.

    Raises:
        ValueError: fewer than 20 of them.
    """
    steady = looks[int(WARM_UP * len(looks)) :]
    if len(steady) < 20:
        raise ValueError(f"{len(steady)} looks after warming up are too few: take 20 or more")
    groups = np.array([look.groups for look in steady], dtype=np.float64)
    kilobytes = np.array([look.kilobytes for look in steady], dtype=np.float64)
    slope, low, high = slope_interval(groups, 1024 * kilobytes)
    tenth = max(1, len(steady) // 10)
    first, last = _pace(steady[: tenth + 1]), _pace(steady[-tenth - 1 :])
    return Verdict(
        groups=steady[-1].groups,
        kilobytes_first=steady[0].kilobytes,
        kilobytes_last=steady[-1].kilobytes,
        slope=slope,
        slope_low=low,
        slope_high=high,
        is_flat=low <= 0 <= high,
        groups_per_core_second_first=first,
        groups_per_core_second_last=last,
        throughput_ratio=last / first,
        machine=machine(),
    )


def slope_interval(
    x_N: NDArray[np.float64], y_N: NDArray[np.float64]
) -> tuple[float, float, float]:
    """The least-squares slope of y over x, and its 95% interval (Student's t)."""
    fit = stats.linregress(x_N, y_N)
    reach = float(stats.t.ppf(0.975, len(x_N) - 2)) * float(fit.stderr)
    return float(fit.slope), float(fit.slope) - reach, float(fit.slope) + reach


def _pace(looks: Sequence[Look]) -> float:
    first, last = looks[0], looks[-1]
    return (last.groups - first.groups) / (last.core_seconds - first.core_seconds)


def _looks(url: str, folder: Path, *, num: int, every: int) -> Iterator[Look]:
    write_digits(
        folder / "digits", num_scenes={"train": NUM_SCENES}, style=SceneStyle(size=SCENE_SIZE)
    )
    data = folder / "digits" / "train"
    dataset = open_dataset(data)
    resolved = resolve("detection", OPTIONS, None)
    task = resolved.load_task(categories=dataset.categories)
    spec = make_spec(
        resolved,
        task,
        dataset,
        run=RUN,
        identity_hash="",
        scorer=ScorerSettings(),
        framing=Square(side=SCENE_SIZE),
    )
    queue = connect_queue(url, run=RUN, lease_seconds=30)
    queue.open_term(Term(number=0, spec=spec.to_bytes(), capacity=2 * CAPACITY), frontier=0)
    worker = subprocess.Popen([sys.executable, "-c", WORKER.format(run=RUN), url, str(data)])
    try:
        rng = np.random.default_rng(0)
        _put(queue, range(CAPACITY), task, rng)
        for start in range(0, num, CAPACITY):
            # One batch is put while the one before is scored: the worker never waits.
            _put(queue, range(start + CAPACITY, start + 2 * CAPACITY), task, rng)
            batch = range(start, start + CAPACITY)
            _await(queue, batch, worker)
            queue.consume(0, before=batch.stop)
            if batch.stop % every == 0:
                yield _look(worker.pid, batch.stop)
    finally:
        worker.kill()
        worker.wait()
        queue.close()


def _put(queue: JobQueue, ordinals: range, task: Task, rng: np.random.Generator) -> None:
    shape = (len(ordinals), NUM_SAMPLES, task.vocabulary.max_tokens)
    tokens_GST = rng.integers(task.vocabulary.size, size=shape, dtype=np.int32)
    for ordinal, tokens_ST in zip(ordinals, tokens_GST, strict=True):
        group = Group(
            ordinal=ordinal,
            example=ordinal % NUM_SCENES,
            view=View(flip=ordinal % 2 == 1),
            published=Published(term=0, policy_version=0),
            tokens_ST=tokens_ST,
            log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
            probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 2), dtype=np.float32),
        )
        queue.put(0, ordinal, group_to_bytes(group))


def _await(queue: JobQueue, ordinals: range, worker: subprocess.Popen[bytes]) -> None:
    while len(queue.results(0, ordinals)) < len(ordinals):
        if worker.poll() is not None:
            raise RuntimeError(f"the worker ended with code {worker.returncode}")
        queue.wait(0, timeout_seconds=1.0)


def _look(pid: int, groups: int) -> Look:
    scorers = _children(pid)
    return Look(
        groups=groups,
        worker_kilobytes=_anonymous(pid),
        scorer_kilobytes=sum(map(_anonymous, scorers)),
        core_seconds=sum(map(_core_seconds, [pid, *scorers])),
    )


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _anonymous(pid: int) -> int:
    """Kilobytes that no file is behind, shared ones in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss_Anon":
            return int(value.split()[0])
    raise RuntimeError(f"the kernel does not tell the anonymous memory of process {pid}")


def _core_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


if __name__ == "__main__":
    main()
