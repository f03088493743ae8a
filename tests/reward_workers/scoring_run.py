"""A run for workers to score: data, spec, groups, and a worker in a thread of its own."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from reward_workers.config import RewardWorkerConfig
from reward_workers.scoring.config import RewardConfig
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.spec import ScoringSpec, make_spec
from reward_workers.worker import RewardWorker
from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.frame import Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.datasets.shards.writer import ShardWriter
from rewardtune.records import Group, Published, View
from rewardtune.transport.queue.job_queue import JobQueue, Term
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.wire import group_to_bytes, scored_group_from_bytes

USER_FOLDER = Path(__file__).with_name("user_folder")
CAPACITY = 1000


def write_tiny_data(folder: Path, *, source: str = "tiny") -> Path:
    """Four examples without a picture."""
    none = np.zeros(0)
    with ShardWriter(folder, categories=[Category(id=1, name="one")], source=source) as writer:
        for number in range(4):
            writer.add(
                Example(
                    image_id=number,
                    file_name=f"{number}.png",
                    height=8,
                    width=8,
                    image=bytes([number]),
                    xywh_N4=np.zeros((0, 4)),
                    category_N=none.astype(np.int64),
                    area_N=none,
                    is_crowd_N=none.astype(bool),
                    annotation_id_N=none.astype(np.int64),
                )
            )
    return folder


def by_token_spec(data: Path, **options: Any) -> ScoringSpec:
    return spec_of(data, "by_token", options)


def spec_of(
    data: Path,
    task_name: str,
    options: Mapping[str, Any],
    *,
    input_size: int = 8,
    threads: int = 1,
    reward: Any = None,
    security: SecurityConfig = PLAIN,
) -> ScoringSpec:
    """A run's; ``reward`` as in its TOML."""
    if str(USER_FOLDER) not in sys.path:
        sys.path.append(str(USER_FOLDER))
    dataset = open_dataset(data)
    config = None if reward is None else RewardConfig.model_validate(reward)
    resolved = resolve(task_name, options, config, security=security)
    task = resolved.load_task(categories=dataset.categories)
    return make_spec(
        resolved,
        task,
        dataset,
        run="test",
        identity_hash="0" * 64,
        scorer=ScorerSettings(threads=threads),
        reward=resolved.load_reward(task=task, dataset_digest=dataset.digest, patience_seconds=10),
        framing=Square(side=input_size),
    )


def group_of(ordinal: int, *tokens: int, term: int = 0) -> bytes:
    """Two rollouts: the tokens, and the tokens with the last one raised by one."""
    tokens_ST = np.array([tokens, (*tokens[:-1], tokens[-1] + 1)], dtype=np.int32)
    return group_to_bytes(
        Group(
            ordinal=ordinal,
            example=ordinal % 4,
            view=View(),
            published=Published(term=term, policy_version=0),
            tokens_ST=tokens_ST,
            log_probs_ST=np.zeros(tokens_ST.shape, dtype=np.float32),
            probe_log_probs_STQ=np.zeros((*tokens_ST.shape, 0), dtype=np.float32),
        )
    )


def open_term(queue: JobQueue, spec: ScoringSpec, *, number: int = 0) -> None:
    queue.open_term(Term(number=number, spec=spec.to_bytes(), capacity=CAPACITY), frontier=0)


def results(
    queue: JobQueue, ordinals: Sequence[int], *, term: int = 0, seconds: float = 60.0
) -> dict[int, list[float] | None]:
    """The rewards of these groups once all have come; None for dead ones."""

    def all_there() -> bool:
        return len(queue.results(term, ordinals)) == len(ordinals)

    eventually(all_there, f"results of {list(ordinals)}", seconds=seconds)
    found = queue.results(term, ordinals)
    return {
        ordinal: None
        if result.scored is None
        else scored_group_from_bytes(result.scored).score.reward_S.tolist()
        for ordinal, result in sorted(found.items())
    }


def eventually(condition: Callable[[], bool], what: str, *, seconds: float = 60.0) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class Recorded:
    """Metrics, to be looked at."""

    def __init__(self) -> None:
        self.counts: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self.values: dict[tuple[str, ...], float] = {}
        self.seconds: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name, *labels.values()] += amount

    def set(self, name: str, value: float, **labels: str) -> None:
        self.values[name, *labels.values()] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        self.seconds[name, *labels.values()].append(seconds)


class Running:
    """A worker at work in this process."""

    def __init__(self, worker: RewardWorker, metrics: Recorded) -> None:
        self.worker = worker
        self.metrics = metrics
        self.exit_code: int | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.exit_code = self.worker.run()
        except BaseException as error:
            self._error = error

    def join(self, *, seconds: float = 30.0) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the worker did not end within {seconds} s"
        if self._error is not None:
            raise self._error

    def eventually_is(self, state: str) -> None:
        def is_there() -> bool:
            assert self._thread.is_alive(), f"the worker ended: {self._error}"
            return self.worker.state.value == state

        eventually(is_there, f"worker {state}; it is {self.worker.state}: {self.worker.message}")


@contextmanager
def working(
    queue: JobQueue,
    data: Path,
    *,
    name: str = "worker",
    artefacts_path: Path | None = None,
    security: SecurityConfig = PLAIN,
    **config: Any,
) -> Iterator[Running]:
    metrics = Recorded()
    worker = RewardWorker(
        queue,
        RewardWorkerConfig(**{"heartbeat_seconds": 0.2, "drain_seconds": 5.0, **config}),
        data_path=data,
        artefacts_path=artefacts_path,
        security=security,
        name=name,
        metrics=metrics,
    )
    running = Running(worker, metrics)
    try:
        yield running
    finally:
        worker.drain()
        running.join()
