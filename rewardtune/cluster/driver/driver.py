"""The driver of a run: starts its services, gives each what is next, lists what happened.

It decides no number. One thread; every service works in a process of its own, and the driver
only waits for calls to end. ``learner_group``, ``sampler_pool``, ``reward_pool`` and
``candidates`` each look after one kind of service; ``draw_table`` decides what to draw.
"""

from __future__ import annotations

import queue as thread_queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardtune.cluster.driver.candidates import Candidates
from rewardtune.cluster.driver.capacity import Requirement, measured_requirement
from rewardtune.cluster.driver.cluster import Cluster
from rewardtune.cluster.driver.draw_table import DrawTable
from rewardtune.cluster.driver.fleet import Fleet, Placement, RunFailed
from rewardtune.cluster.driver.learner_group import LearnerGroup
from rewardtune.cluster.driver.metrics import report_queue, report_state, report_workers
from rewardtune.cluster.driver.pace import NUM_RECENT_STEPS
from rewardtune.cluster.driver.reward_pool import RewardPool
from rewardtune.cluster.driver.sampler_pool import SamplerPool
from rewardtune.cluster.driver.service import Service
from rewardtune.cluster.driver.status import DriverStatus, run_status, targets_of
from rewardtune.cluster.driver.whereabouts import Location, find_group
from rewardtune.cluster.hosts.replies import Joined, Stepped
from rewardtune.config.cluster_config import MAX_REWARD_WORKERS
from rewardtune.config.run_config import RunConfig
from rewardtune.evaluation.history import History
from rewardtune.run.log import RunLog
from rewardtune.run.result import RunResult, finished
from rewardtune.run.run_state import RunStateFile
from rewardtune.run.unscored import TOO_MANY_UNSCORED, UnscoredGroups
from rewardtune.transport.queue.job_queue import (
    DeadLetter,
    JobQueue,
    QueueStats,
    QueueUnavailable,
    WorkerRecord,
)
from rewardtune.transport.telemetry.exposition import Target
from rewardtune.transport.telemetry.meter import Meter, NoTelemetry
from rewardtune.transport.term import StaleTerm

TICK_SECONDS = 1.0
"""Between two scans of the queue; a group that fell out of it is found at the second."""
_WAIT_SECONDS = 0.1


class Driver:
    """One run of tuning, from the first service's start to the last one's end."""

    def __init__(
        self,
        config: RunConfig,
        log: RunLog,
        *,
        cluster: Cluster,
        queue: JobQueue,
        placement: Placement,
        meter: Meter | None = None,
        told: RunStateFile | None = None,
    ) -> None:
        """
        Args:
            config: pinned.
            queue: the driver's own connection.
            told: hears how the run stands.
        """
        self._meter = meter or NoTelemetry()
        num_steps = config.learner.num_steps
        self._meter.set("run_steps_planned", num_steps)
        self._config = config
        self._log = log
        self._queue = queue
        self._directory = config.operations.directory
        self._told = told or RunStateFile(self._directory, num_steps=num_steps)
        self._history = History(self._directory, metric=config.evaluation.metric)
        self._table = DrawTable(
            batch_size=config.learner.batch_size,
            micro_batch=config.sampler.micro_batch,
            num_batches=num_steps,
            drawn_with=config.drawn_with,
            depth=config.depth,
        )
        self._fleet = Fleet(cluster, placement, log=log, meter=self._meter)
        self._learner = LearnerGroup(
            self._fleet, num_ranks=placement.num_learners, log=log, events=self
        )
        self._samplers = SamplerPool(
            self._fleet,
            self._table,
            count=placement.num_samplers,
            log=log,
            retry_seconds=TICK_SECONDS,
        )
        self._reward = RewardPool(self._fleet, count=placement.num_reward_workers)
        self._candidates = Candidates(
            self._fleet,
            history=self._history,
            best_path=self._directory / "best.safetensors",
            log=log,
            meter=self._meter,
        )
        self._commands: thread_queue.SimpleQueue[Callable[[], None]] = thread_queue.SimpleQueue()
        self._state = "starting"
        self._term = -1
        self._version = 0
        self._is_paused = False
        self._wants_checkpoint = False
        self._stops = self._is_evicted = False
        self._unscored = UnscoredGroups(config.learner.batch_size)
        self._recent: deque[Mapping[str, float]] = deque(maxlen=NUM_RECENT_STEPS)
        self._skipped_batches: frozenset[int] = frozenset()
        self._stats: QueueStats | None = None
        self._records: Sequence[WorkerRecord] = ()
        self._next_tick = 0.0

    # What an operator may ask for, from any thread.

    def drain(self, *, for_restart: bool = False) -> None:
        """Finish or abandon the step, write a checkpoint, end.

        Args:
            for_restart: this machine goes away: ``run`` then fails, so that it is started again.
        """

        def apply() -> None:
            self._is_evicted = self._is_evicted or (for_restart and not self._stops)
            self._stop()

        self._commands.put(apply)

    def pause(self, *, is_paused: bool) -> None:
        """No new draw and no new step; or go on."""

        def apply() -> None:
            if self._stops:
                return
            self._is_paused = is_paused
            if self._state in ("running", "paused"):
                self._state = "paused" if is_paused else "running"

        self._commands.put(apply)

    def scale_reward_workers(self, count: int) -> int:
        """So many workers inside Ray; those that go finish what they hold.

        Returns:
            How many there were to be before.

        Raises:
            ValueError: there cannot be so many, or so few.
        """
        if not 0 <= count <= MAX_REWARD_WORKERS:
            raise ValueError(
                f"reward workers inside Ray can be 0 to {MAX_REWARD_WORKERS}, got {count}: start "
                "more of them outside, by rewardtune reward-worker"
            )
        if count == 0 and self._config.cluster.queue is None:
            raise ValueError(
                "without reward workers nothing is scored: 0 inside Ray needs cluster.queue, "
                "through which others score"
            )

        def apply() -> None:
            self._reward.num_wanted = count

        self._commands.put(apply)
        return self._reward.num_wanted

    def checkpoint(self) -> None:
        """Write one after the step that is being taken."""

        def apply() -> None:
            self._wants_checkpoint = True

        self._commands.put(apply)

    def explain(self, ordinal: int) -> Location:
        """Where a group is.

        Raises:
            ValueError: there is no such ordinal.
            QueueUnavailable, StaleTerm: as the queue says.
        """
        return find_group(
            ordinal,
            self._config,
            version=self._version,
            term=self._term,
            table=self._table,
            queue=self._queue,
            skipped_batches=self._skipped_batches,
        )

    def dead_letters(self) -> list[DeadLetter]:
        """Groups that nobody could score, by ordinal.

        Raises:
            QueueUnavailable: as the queue says.
        """
        return sorted(self._queue.dead_letters(), key=lambda letter: letter.ordinal)

    def status(self) -> dict[str, Any]:
        """The run as it is now, as plain JSON values."""
        required = self.required
        driver = DriverStatus(
            state="failed" if self._fleet.failure is not None else self._state,
            term=self._term,
            step=self._version,
            best=self._history.best,
            evaluations_skipped=self._candidates.num_skipped,
            redraws=self._table.num_redraws,
            draws_in_flight=self._table.num_in_flight,
            reward_workers_wanted=self._reward.num_wanted,
            reward_workers_required=required.reward_workers,
            depth_required=required.depth,
            queue=self._stats,
        )
        return run_status(
            driver,
            self._config,
            recent=list(self._recent),
            others=self._others,
            workers=self._reward.workers,
            records=self._records,
        ).to_json()

    @property
    def required(self) -> Requirement:
        """What would keep the learner from waiting."""
        per_draw = self._samplers.seconds_per_draw
        num_draws = self._config.learner.batch_size / self._config.sampler.micro_batch
        return measured_requirement(
            self._config,
            self._records,
            list(self._recent),
            sampling_seconds=None if per_draw is None else num_draws * per_draw,
        )

    def targets(self) -> list[Target]:
        """Every process of the run that exports metrics, reward workers outside Ray included."""
        return targets_of(self._others, self._records, run=self._config.run_name)

    @property
    def _others(self) -> list[Service[Any]]:
        """All services but the reward workers."""
        evaluator = self._candidates.evaluator
        return [
            *self._learner.ranks,
            *([evaluator] if evaluator is not None else []),
            *self._samplers.samplers,
        ]

    def run(self, should_stop: Callable[[], bool]) -> RunResult:
        """Until the last step is taken, or a stop is asked for.

        Raises:
            RunFailed: a service cannot be kept alive, or the run was drained for a restart.
            StaleTerm: another start has taken the run over.
            NotFinite: a step left the numbers.
            ConfigError, CheckpointError, OSError: as the learner says.
        """
        try:
            self._learner.start()
            self._samplers.start()
            self._reward.keep()
            if self._config.data.holdout is not None:
                self._candidates.start()
            while self._fleet.failure is None and not self._learner.is_over:
                self._turn(should_stop)
        finally:
            self._told.tell(self._state, step=self._version)
            self._fleet.end([*self._reward.workers, *self._others])
        if self._fleet.failure is not None:
            raise self._fleet.failure
        if self._is_evicted and not self._is_complete:
            raise RunFailed(
                f"its machine goes away: stopped at step {self._version} of "
                f"{self._config.learner.num_steps} with a checkpoint; the same command goes on"
            )
        self._told.ended(step=self._version)
        self._state = self._told.now.state
        report_state(self._meter, self._state)
        return finished(self._config, self._directory, self._history, step=self._version)

    # One turn of the loop.

    def _turn(self, should_stop: Callable[[], bool]) -> None:
        if should_stop():
            self._stop()
        while not self._commands.empty():
            self._commands.get()()
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + TICK_SECONDS
            self._tick()
        self._place()
        self._fleet.settle(timeout_seconds=_WAIT_SECONDS)

    def _place(self) -> None:
        """Give everyone who is idle what there is to do."""
        if self._learner.is_idle:
            self._place_learner()
        if self._is_paused:
            return
        if not self._stops:
            self._samplers.place()
        self._candidates.place()

    def _place_learner(self) -> None:
        if self._wants_checkpoint:
            self._wants_checkpoint = False
            self._learner.save()
        elif self._is_paused:
            pass
        elif self._is_complete:
            if self._candidates.is_done:
                self._finish()
        elif self._stops:
            self._finish()
        else:
            self._learner.step()

    @property
    def _is_complete(self) -> bool:
        return self._version >= self._config.learner.num_steps

    def _finish(self) -> None:
        self._fleet.is_ending = True
        self._learner.finish()

    def _stop(self) -> None:
        if not self._stops:
            self._stops = self._fleet.is_ending = True
            self._is_paused = False
            self._state = "draining"
            if not self._is_complete:
                self._candidates.clear()

    def _tick(self) -> None:
        """Look at the queue: what fell out of it, and how it fares."""
        self._reward.keep()
        report_state(self._meter, self._state)
        self._meter.set("run_step", self._version)
        self._told.tell(self._state, step=self._version)
        self._meter.set_total("redraws_total", self._table.num_redraws)
        if self._term < 0:
            return
        try:
            ordinals = self._table.settled_ordinals()
            missing = self._queue.missing(self._term, ordinals) if ordinals else []
            self._stats = self._queue.stats()
            self._records = self._queue.workers()
        except (QueueUnavailable, StaleTerm):
            report_queue(self._meter, None)
            return  # the learner reopens it, or ends the run
        report_queue(self._meter, self._stats)
        report_workers(self._meter, self._records, num_required=self.required.reward_workers)
        self._reward.have_scored(
            {record.metrics_address for record in self._records if record.num_groups}
        )
        if again := self._table.reconcile(missing):
            self._log.message(f"{len(again)} micro-batches fell out of the queue: drawn again")

    # What the learner does: implements ``learner_group.LearnerEvents``.

    def learner_joined(self, joined: Joined, *, term: int) -> None:
        self._term, self._version = term, joined.version
        if self._version:
            self._log.message(
                f"continuing {self._directory} at step {self._version} of "
                f"{self._config.learner.num_steps}"
            )
        self._samplers.open_term(self._term, version=self._version)
        self._measure(joined.candidate)
        if self._state == "starting":
            self._state = "paused" if self._is_paused else "running"

    def learner_stepped(self, stepped: Stepped) -> None:
        self._version = stepped.version
        self._table.published(self._version)
        for message in stepped.messages:
            self._log.message(message)
        record = stepped.record
        self._recent.append(record)
        is_skipped = bool(record["is_skipped"])
        if is_skipped:
            self._skipped_batches |= {self._version - 1}
            self._meter.count("run_steps_skipped_total")
        if self._version % self._config.operations.log_every == 0 or is_skipped:
            self._log.step(record)
        self._measure(stepped.candidate)
        if self._unscored.are_too_many(stepped.num_invalid):
            self._is_paused = True
            self._state = "paused"
            self._log.message(f"paused: {TOO_MANY_UNSCORED}; see the dead letters, then resume")

    def learner_lost(self) -> None:
        self._term = -1
        self._samplers.close_term()
        self._fleet.is_ending = self._stops

    def wants_learner(self) -> bool:
        return not self._stops

    def _measure(self, candidate: Path | None) -> None:
        if candidate is None or (self._stops and not self._is_complete):
            return
        is_needed = self._is_complete or self._version == 0
        self._candidates.offer(candidate, step=self._version, is_needed=is_needed)
