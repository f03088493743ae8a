"""What a group costs beside the work of policy and task: a whole loop in which these do nothing.

Data order, pictures, draws, wire format, queue, reward worker with a scorer in a process of its
own, learner, optimizer, publication: all real, with the queue and the weights in memory. What Ray
or Redis add per call is in the figures of the queue.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from bench.figure import Figure, figure
from bench.no_work import NoWorkPolicy, NoWorkSizes
from bench.small_run import small_start, small_tune, without_holdout
from learner.source import QueueSource
from reward_workers.config import RewardWorkerConfig
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.spec import make_spec
from reward_workers.worker import RewardWorker
from rewardtune.cluster.driver.draw_table import DrawTable
from rewardtune.records import Published
from rewardtune.run.assembly import Parts, assemble, build_sampler
from rewardtune.run.tuning import TuningLoop
from rewardtune.transport.queue.job_queue import Term
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.seal import SEAL_BYTES, RunSeal
from rewardtune.transport.weights.weight_store import MemoryWeightStore
from sampler.service import SamplerService

LIMIT_SECONDS = 1e-3
"""Of a group: what it may cost at most, the floor of the figure."""
BATCH = 64
_TICKS = os.sysconf("SC_CLK_TCK")


def machinery(*, is_quick: bool) -> Iterator[Figure]:
    yield from machinery_figures(num_steps=10 if is_quick else 40, num_rounds=3 if is_quick else 5)


def machinery_figures(*, num_steps: int, num_rounds: int) -> Iterator[Figure]:
    """Seconds, and seconds of a core, per group of 8 rollouts; the best of several rounds.

    ``floor`` is the limit, so ``of_floor`` is above 1 where it is kept.
    """
    with tempfile.TemporaryDirectory() as name, _loop(Path(name), num_rounds * num_steps) as loop:
        seconds, core_seconds = [], []
        loop.take(2)
        for _ in range(num_rounds):
            began, cores_began = time.perf_counter(), loop.core_seconds()
            loop.take(num_steps)
            num_groups = num_steps * BATCH
            seconds.append((time.perf_counter() - began) / num_groups)
            core_seconds.append((loop.core_seconds() - cores_began) / num_groups)
    yield figure("machinery.noop.seconds", min(seconds), floor_seconds=LIMIT_SECONDS)
    yield figure("machinery.noop.core_seconds", min(core_seconds), floor_seconds=LIMIT_SECONDS)


class _Loop:
    """One sampler, one reward worker in a thread, one learner."""

    def __init__(self, parts: Parts, worker: RewardWorker, queue: MemoryJobQueue) -> None:
        config = parts.config
        self._worker = worker
        store = MemoryWeightStore()
        size = config.learner.batch_size
        spec = make_spec(
            parts.resolved,
            parts.task,
            parts.train,
            run=config.run_name,
            identity_hash=config.identity_hash(),
            framing=parts.policy.framing,
            scorer=ScorerSettings(threads=1),
        )
        term = Term(number=0, spec=spec.to_bytes(), capacity=(config.depth + 1) * size)
        seal = RunSeal("bench", bytes(SEAL_BYTES))
        source = QueueSource(queue, term, patience_seconds=60.0, seal=seal, promise=spec.promise)
        self._tuning = TuningLoop(parts, term=0, store=store, source=source)
        self._tuning.restore({})
        source.open(frontier=0)
        self._sampler = SamplerService(build_sampler(parts), queue=queue, store=store, seal=seal)
        self._table = DrawTable(
            batch_size=size,
            micro_batch=config.sampler.micro_batch,
            num_batches=config.learner.num_steps,
            drawn_with=config.drawn_with,
            depth=config.depth,
        )
        self._table.begin(version=0)

    def take(self, num_steps: int) -> None:
        """So many steps; draws whatever may be drawn before each."""
        for _ in range(num_steps):
            while (draw := self._table.next()) is not None:
                self._sampler.draw(Published(0, draw.policy_version), draw.ordinals)
                self._table.done(draw)
            if self._tuning.step() is None:
                raise TimeoutError(f"nothing is scored: {self._worker.message}")
            self._table.published(self._tuning.learner.policy_version)

    def core_seconds(self) -> float:
        """Of this process and its scorers so far."""
        return time.process_time() + sum(map(_core_seconds, self._worker.scorer_pids))


@contextmanager
def _loop(folder: Path, num_steps: int) -> Iterator[_Loop]:
    torch.set_num_threads(1)
    start = small_start(folder, num_steps=1)
    config = small_tune(
        folder,
        "noop",
        start=start,
        task="bench.no_work",
        learner={"batch_size": BATCH, "micro_batch": BATCH, "num_steps": num_steps + 10},
        sampler={"num_samples": 8, "micro_batch": BATCH // 2},
    )
    parts = assemble(without_holdout(config))
    parts = replace(parts, policy=cast("Any", _policy_like(parts)))
    queue = MemoryJobQueue()
    worker = RewardWorker(queue, RewardWorkerConfig(), data_path=config.data.train, name="worker")
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield _Loop(parts, worker, queue)
    finally:
        worker.drain()
        thread.join()


def _policy_like(parts: Parts) -> NoWorkPolicy:
    policy = parts.policy
    sizes = NoWorkSizes(
        vocab_size=policy.vocab_size,
        sequence_length=policy.sequence_length,
        input_size=policy.framing.side,
    )
    return NoWorkPolicy(sizes)


def _core_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
