"""A whole run of tuning around one queue, in one process, with strangers at work in the queue.

Sampler, learner, reward worker with a scorer of its own and draw table are the real ones, and do
what driver and hosts have them do; whoever forges works beside them in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from bench.small_run import small_start, small_tune, weights_of, without_holdout
from learner.source import Collected, QueueSource
from reward_workers.config import RewardWorkerConfig
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.spec import ScoringSpec, make_spec
from reward_workers.worker import RewardWorker
from rewardtune.cluster.driver.draw_table import DrawTable
from rewardtune.config.run_config import RunConfig
from rewardtune.records import Published, ScoredGroup
from rewardtune.run.assembly import Parts, assemble, build_sampler
from rewardtune.run.tuning import TuningLoop
from rewardtune.transport.queue.job_queue import (
    Job,
    JobQueue,
    QueueFull,
    QueueStats,
    QueueUnavailable,
    Term,
)
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights.weight_store import MemoryWeightStore
from rewardtune.transport.wire import group_to_bytes
from sampler.service import SamplerService
from tests.reward_workers.passed_on import PassedOn

SEAL = RunSeal("6f1c1c5e-0000-4000-8000-000000000001", b"a secret of thirty-two bytes ....")
HONEST = "honest"
_SCAN_SECONDS = 0.05
LIMIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a run, and what its queue counted."""

    digest: str
    """Of the final weights; empty if the run ended by an error."""
    error: str
    num_foreign: int
    """Groups that were trained on and that its sampler had not drawn: none, ever."""
    num_invalid: int
    num_redraws: int
    messages: list[str]
    stats: QueueStats | None


class Forging(Protocol):
    """Whoever writes into the queue beside the run."""

    def __call__(self, term: Term, spec: ScoringSpec, stop: threading.Event) -> None:
        """In a thread of its own, until it has done enough or the event is set."""
        ...

    def is_ahead(self, share: float) -> bool:
        """It has done so much of what it means to do."""
        ...


class PoisonedRun:
    """One run of a tiny detector over queues that the caller makes."""

    def __init__(self, folder: Path, *, num_steps: int) -> None:
        torch.set_num_threads(1)
        start = small_start(folder, num_steps=1)
        self._config: RunConfig = without_holdout(
            small_tune(
                folder,
                "poisoned",
                start=start,
                task="detection",
                learner={"num_steps": num_steps},
            )
        )

    def go(
        self,
        connect: Callable[[], JobQueue],
        *,
        as_worker: Callable[[], JobQueue] | None = None,
        forge: Forging | None = None,
    ) -> Ended:
        """Take every step.

        Args:
            connect: another connection to the queue, for learner, sampler and driver each.
            as_worker: one for the reward worker; None: as ``connect``.
            forge: the honest worker waits for it wherever the run is ahead of it, so that a slow
                machine forges as much as a fast one.
        """
        parts = assemble(self._config)
        spec = _spec(parts)
        capacity = (self._config.depth + 1) * self._config.learner.batch_size
        term = Term(0, spec.to_bytes(), capacity, SEAL.run_id, b"")
        term = Term(0, term.spec, capacity, SEAL.run_id, SEAL.of_term(0, capacity, term.spec))
        with ExitStack() as stack:
            queue, own = connect(), (as_worker or connect)()
            stack.callback(queue.close)
            stack.callback(own.close)
            run = _Running(parts, queue, connect(), term, spec)
            worker = RewardWorker(
                own if forge is None else _Patient(own, lambda: forge.is_ahead(run.share)),
                # Whatever forges has to be first: nothing is held that is not being scored.
                RewardWorkerConfig(lease_seconds=2.0, heartbeat_seconds=0.5, prefetch=0),
                data_path=self._config.data.train,
                name=HONEST,
            )
            stop = threading.Event()
            threads = [threading.Thread(target=worker.run)]
            if forge is not None:
                threads.append(threading.Thread(target=forge, args=(term, spec, stop)))
            run.open()
            for thread in threads:
                thread.start()
            try:
                return run.to_the_end()
            finally:
                stop.set()
                worker.drain()
                for thread in threads:
                    thread.join()


class _Running:
    def __init__(
        self, parts: Parts, queue: JobQueue, drivers: JobQueue, term: Term, spec: ScoringSpec
    ) -> None:
        self._parts, self._queue, self._drivers = parts, queue, drivers
        store = MemoryWeightStore()
        self.source = QueueSource(
            queue, term, patience_seconds=0.2, seal=SEAL, promise=spec.promise
        )
        self._tuning = TuningLoop(parts, term=0, store=store, source=_Watched(self))
        self._sampler = SamplerService(
            build_sampler(parts), queue=_Remembering(queue, self), store=store, seal=SEAL
        )
        config = parts.config
        self._table = DrawTable(
            batch_size=config.learner.batch_size,
            micro_batch=config.sampler.micro_batch,
            num_batches=config.learner.num_steps,
            drawn_with=config.drawn_with,
            depth=config.depth,
        )
        self._lock = threading.Lock()
        self._messages: list[str] = []
        self._is_over = False
        self.drawn: set[bytes] = set()
        self.num_foreign = 0

    @property
    def share(self) -> float:
        """How much of its steps the run will have taken after this one."""
        return (1 + self._tuning.learner.policy_version) / self._parts.config.learner.num_steps

    def open(self) -> None:
        self._tuning.restore({})
        self.source.open(frontier=0)
        self._table.begin(version=0)

    def to_the_end(self) -> Ended:
        driver = threading.Thread(target=self._drive)
        driver.start()
        digest = error = ""
        try:
            self._learn()
            digest = weights_of(self._parts.policy)
        except (RuntimeError, TimeoutError) as raised:
            error = str(raised)
        finally:
            self._is_over = True
            driver.join()
        stats = None
        with suppress(QueueUnavailable):
            stats = self._queue.stats()
        return Ended(
            digest=digest,
            error=error,
            num_foreign=self.num_foreign,
            num_invalid=len(self._tuning.learner.ledger.invalid),
            num_redraws=self._table.num_redraws,
            messages=self._messages + list(self.source.take_messages()),
            stats=stats,
        )

    def _learn(self) -> None:
        learner, last = self._tuning.learner, self._parts.config.learner.num_steps
        until = time.monotonic() + LIMIT_SECONDS
        while learner.policy_version < last:
            if time.monotonic() > until:
                raise TimeoutError(f"still at step {learner.policy_version}")
            taken = self._tuning.step()
            self._messages += self.source.take_messages()
            if taken is not None:
                with self._lock:
                    self._table.published(learner.policy_version)

    def _drive(self) -> None:
        """What the driver does: place draws, and look for what fell out of the queue."""
        while not self._is_over:
            with self._lock:
                draw = self._table.next()
            if draw is None:
                time.sleep(_SCAN_SECONDS)
                self._scan()
                continue
            try:
                self._sampler.draw(Published(0, draw.policy_version), draw.ordinals)
            except (QueueUnavailable, QueueFull, StaleTerm):
                time.sleep(_SCAN_SECONDS)
                with self._lock:
                    self._table.lost(draw)
            else:
                with self._lock:
                    self._table.done(draw)

    def _scan(self) -> None:
        with self._lock:
            ordinals = self._table.settled_ordinals()
        try:
            missing = self._drivers.missing(0, ordinals)
            # As the driver does, whose figures a stranger may have spoilt.
            self._drivers.stats(), self._drivers.workers(), self._drivers.dead_letters()
        except (QueueUnavailable, StaleTerm):
            return
        with self._lock:
            self._table.reconcile(missing)


class _Remembering(PassedOn):
    """Keeps the bodies that the sampler has drawn."""

    def __init__(self, queue: JobQueue, run: _Running) -> None:
        super().__init__(queue)
        self._run = run

    def put(self, term: int, ordinal: int, body: bytes, *, seal: bytes = b"") -> bool:
        self._run.drawn.add(body)
        return super().put(term, ordinal, body, seal=seal)


class _Patient(PassedOn):
    """Has no job for its worker before it may."""

    def __init__(self, queue: JobQueue, may_lease: Callable[[], bool]) -> None:
        super().__init__(queue)
        self._may_lease = may_lease

    def lease(
        self, worker: str, *, reward_digest: str, max_jobs: int, timeout_seconds: float
    ) -> list[Job]:
        if not self._may_lease():
            time.sleep(0.005)
            return []
        return super().lease(
            worker,
            reward_digest=reward_digest,
            max_jobs=max_jobs,
            timeout_seconds=min(timeout_seconds, 0.02),
        )


class _Watched:
    """Counts what comes to be trained on and was not drawn."""

    def __init__(self, run: _Running) -> None:
        self._run = run

    def collect(self, ordinals: range) -> Collected | None:
        collected = self._run.source.collect(ordinals)
        if collected is not None:
            self._run.num_foreign += sum(map(self._is_foreign, collected.scored))
        return collected

    def consumed(self, *, before: int) -> None:
        self._run.source.consumed(before=before)

    def _is_foreign(self, scored: ScoredGroup) -> bool:
        return group_to_bytes(scored.group) not in self._run.drawn


def _spec(parts: Parts) -> ScoringSpec:
    return make_spec(
        parts.resolved,
        parts.task,
        parts.train,
        run=parts.config.run_name,
        identity_hash=parts.config.identity_hash(),
        framing=parts.policy.framing,
        scorer=ScorerSettings(threads=1),
    )
