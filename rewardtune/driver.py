"""The driver of a run: places draws, starts what died, lists what happened.

It decides no number. One thread; every service works in a process of its own, and the driver
only waits for calls to end. ``draw_table`` decides what to draw, ``history`` what was best.
"""

from __future__ import annotations

import queue as thread_queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewardtune.capacity import Requirement, measured_requirement
from rewardtune.cluster import Call, Cluster, ServiceDied
from rewardtune.config import RunConfig
from rewardtune.draw_table import Draw, DrawTable
from rewardtune.driver_metrics import (
    report_evaluation,
    report_queue,
    report_state,
    report_workers,
)
from rewardtune.driver_status import told_by_config, told_by_services, told_by_steps
from rewardtune.fleet import Fleet, Hosted, Placement, RunFailed, first_line
from rewardtune.history import History
from rewardtune.local import RunResult, finished
from rewardtune.pace import NUM_RECENT_STEPS
from rewardtune.run_log import RunLog
from rewardtune.unscored import TOO_MANY_UNSCORED, UnscoredGroups
from rewardtune.whereabouts import Location, find_group
from transport.exposition import Target
from transport.job_queue import (
    DeadLetter,
    JobQueue,
    QueueStats,
    QueueUnavailable,
    WorkerRecord,
)
from transport.telemetry import Meter, NoTelemetry
from transport.term import StaleTerm
from transport.weight_store import DamagedWeights, WeightsNotFound, WeightsUnavailable

TICK_SECONDS = 1.0
"""Between two scans of the queue; a group that fell out of it is found at the second."""
MAX_REWARD_WORKERS = 1000
"""Inside Ray, which stalls when many more are asked for at once."""
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
    ) -> None:
        """
        Args:
            config: pinned.
            queue: the driver's own connection.
        """
        self._meter = meter or NoTelemetry()
        self._meter.set("run_steps_planned", config.learner.num_steps)
        self._config = config
        self._log = log
        self._fleet = Fleet(cluster, placement, log=log, meter=self._meter)
        self._num_samplers = placement.num_samplers
        self._queue = queue
        self._directory = config.operations.directory
        self._history = History(self._directory, metric=config.evaluation.metric)
        self._table = DrawTable(
            batch_size=config.learner.batch_size,
            micro_batch=config.sampler.micro_batch,
            num_batches=config.learner.num_steps,
            drawn_with=config.drawn_with,
            depth=config.depth,
        )
        self._commands: thread_queue.SimpleQueue[Callable[[], None]] = thread_queue.SimpleQueue()
        self._samplers: list[Hosted] = []
        self._workers: list[Hosted] = []
        self._learner: Hosted | None = None
        self._evaluator: Hosted | None = None
        self._num_workers_wanted = placement.num_reward_workers
        self._num_workers_started = 0
        self._term = -1
        self._version = 0
        self._furthest = 0
        self._draw_at = 0.0
        self._is_paused = False
        self._wants_checkpoint = False
        self._is_finishing = False
        self._stops = False
        self._failure: Exception | None = None
        self._candidates: deque[tuple[int, Path]] = deque()
        self._measured: int | None = None
        self._evaluations_skipped = 0
        self._unscored = UnscoredGroups(config.learner.batch_size)
        self._record: Mapping[str, float] = {}
        self._recent: deque[Mapping[str, float]] = deque(maxlen=NUM_RECENT_STEPS)
        self._draw_seconds: deque[float] = deque(maxlen=NUM_RECENT_STEPS)
        self._skipped_batches: frozenset[int] = frozenset()
        self._stats: QueueStats | None = None
        self._records: Sequence[WorkerRecord] = ()
        self._next_tick = 0.0
        self._state = "starting"

    # What an operator may ask for, from any thread.

    def drain(self) -> None:
        """Finish or abandon the step, write a checkpoint, end."""
        self._commands.put(self._stop)

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
        if count == 0 and self._config.cluster.redis is None:
            raise ValueError(
                "without reward workers nothing is scored: 0 inside Ray needs cluster.redis, "
                "through which others score"
            )

        def apply() -> None:
            self._num_workers_wanted = count

        self._commands.put(apply)
        return self._num_workers_wanted

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
        others = [h for h in (self._learner, self._evaluator) if h is not None]
        return {
            "state": self._state,
            "term": self._term,
            "step": self._version,
            "best": self._history.best,
            "evaluations_skipped": self._evaluations_skipped,
            "redraws": self._table.num_redraws,
            "draws_in_flight": self._table.num_in_flight,
            "reward_workers_wanted": self._num_workers_wanted,
            "reward_workers_required": (required := self.required).reward_workers,
            "depth_required": required.depth,
            "queue": asdict(self._stats) if self._stats else None,
            **told_by_config(self._config),
            **told_by_steps(list(self._recent)),
            **told_by_services([*others, *self._samplers], self._workers, self._records),
        }

    @property
    def required(self) -> Requirement:
        """What would keep the learner from waiting."""
        draws = list(self._draw_seconds)
        batch = self._config.learner.batch_size / self._config.sampler.micro_batch
        return measured_requirement(
            self._config,
            self._records,
            list(self._recent),
            sampling_seconds=batch * sum(draws) / len(draws) / self._num_samplers
            if draws
            else None,
        )

    def targets(self) -> list[Target]:
        """Every process of the run that exports metrics, reward workers outside Ray included."""
        run = self._config.run_name
        hosted = [h for h in (self._learner, self._evaluator, *self._samplers) if h is not None]
        found = [Target(h.metrics_address, h.kind, run) for h in hosted if h.metrics_address]
        found += [
            Target(record.metrics_address, "reward_worker", run)
            for record in self._records
            if record.metrics_address
        ]
        return found

    def run(self, should_stop: Callable[[], bool]) -> RunResult:
        """Until the last step is taken, or a stop is asked for.

        Raises:
            RunFailed: a service cannot be kept alive.
            StaleTerm: another start has taken the run over.
            ConfigError, CheckpointError, OSError: as the learner says.
        """
        try:
            self._start_all()
            while not self._is_over():
                self._turn(should_stop)
        finally:
            self._fleet.end([*self._workers, *self._samplers, self._learner, self._evaluator])
        if self._failure is not None:
            raise self._failure
        self._state = "finished" if self._is_complete else "stopped"
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

    def _is_over(self) -> bool:
        return self._failure is not None or (self._is_finishing and self._learner is None)

    def _place(self) -> None:
        """Give everyone who is idle what there is to do."""
        learner = self._learner
        if learner is not None and learner.is_idle and not self._is_finishing:
            if self._wants_checkpoint:
                self._wants_checkpoint = False
                self._call(learner, "save", self._settle_learner)
            elif self._is_paused:
                pass
            elif self._is_complete:
                if not self._candidates and self._measured is None:
                    self._finish(learner)
            elif self._stops:
                self._finish(learner)
            else:
                self._call(learner, "step", self._on_step)
        if self._is_paused:
            return
        if not self._stops and self._term >= 0 and time.monotonic() >= self._draw_at:
            for sampler in self._samplers:
                if sampler.is_idle and (draw := self._table.next()) is not None:
                    self._draw(sampler, draw)
        evaluator = self._evaluator
        if evaluator is not None and evaluator.is_idle and self._candidates:
            step, path = self._candidates.popleft()
            self._measured = step
            self._call(
                evaluator, "evaluate", lambda call: self._on_evaluated(call, step, path), str(path)
            )

    @property
    def _is_complete(self) -> bool:
        return self._version >= self._config.learner.num_steps

    def _finish(self, learner: Hosted) -> None:
        self._is_finishing = True
        self._call(learner, "finish", self._on_finished)

    def _tick(self) -> None:
        """Look at the queue: what fell out of it, and how it fares."""
        self._keep_workers()
        report_state(self._meter, self._state)
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
        scoring = {record.metrics_address for record in self._records if record.num_groups}
        for worker in self._workers:
            if worker.metrics_address in scoring:
                worker.deaths_in_a_row = 0
        if again := self._table.reconcile(missing):
            self._log.message(f"{len(again)} micro-batches fell out of the queue: drawn again")

    # Starting and ending.

    def _start_all(self) -> None:
        self._learner = self._fleet.start("learner", "learner")
        self._call(self._learner, "begin", self._on_learner_begun)
        for number in range(self._num_samplers):
            sampler = self._fleet.start(f"sampler-{number}", "sampler")
            self._samplers.append(sampler)
            self._begin(sampler)
        self._keep_workers()
        if self._config.data.holdout is not None:
            self._evaluator = self._fleet.start("evaluator", "evaluator")
            self._begin(self._evaluator)

    def _restart(self, hosted: Hosted, error: Exception) -> bool:
        """Start a service again that died; False if that is no use any more."""
        if (self._is_finishing or self._stops) and hosted.kind not in ("learner", "evaluator"):
            return False
        try:
            self._fleet.restart(hosted, error)
        except RunFailed as failure:
            self._fail(failure)
            return False
        return True

    def _stop(self) -> None:
        if not self._stops:
            self._stops = True
            self._is_paused = False
            self._state = "draining"
            if not self._is_complete:
                self._candidates.clear()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._state = "failed"

    # Reward workers.

    def _keep_workers(self) -> None:
        """As many as are wanted: start what is missing, drain what is too many."""
        if self._stops or self._is_finishing:
            return
        while len(self._workers) < self._num_workers_wanted:
            name = f"reward-worker-{self._num_workers_started}"
            self._num_workers_started += 1
            worker = self._fleet.start(name, "reward_worker")
            self._workers.append(worker)
            self._begin(worker)
        while len(self._workers) > self._num_workers_wanted:
            self._fleet.let_go(self._workers.pop())

    def _on_worker_ended(self, call: Call, worker: Hosted) -> None:
        try:
            self._fleet.result(call)
        except ServiceDied as error:
            if worker in self._workers and self._restart(worker, error):
                self._begin(worker)
        except Exception as error:
            self._fail(error)
        else:
            self._fleet.kill(worker)
            if worker in self._workers:  # somebody asked the queue to drain it
                self._workers.remove(worker)

    # What calls come to.

    def _call(
        self, hosted: Hosted, method: str, then: Callable[[Call], object], *arguments: Any
    ) -> None:
        self._fleet.call(hosted, method, then, *arguments)

    def _draw(self, sampler: Hosted, draw: Draw) -> None:
        term, began = self._term, time.monotonic()
        self._call(
            sampler,
            "draw",
            lambda call: self._on_drawn(call, sampler, draw, term, began),
            term,
            draw.policy_version,
            draw.first_ordinal,
            draw.num_groups,
        )

    def _begin(self, hosted: Hosted) -> None:
        self._call(hosted, "begin", lambda call: self._on_begun(call, hosted))

    def _on_begun(self, call: Call, hosted: Hosted) -> None:
        try:
            hosted.tell(self._fleet.result(call))
        except ServiceDied as error:
            if self._restart(hosted, error):
                self._begin(hosted)
        except (QueueUnavailable, WeightsUnavailable) as error:
            self._log.message(f"{hosted.service.name} cannot begin yet: {first_line(error)}")
            self._begin(hosted)
        except Exception as error:
            self._fail(error)
        else:
            if hosted.kind == "reward_worker":
                self._call(hosted, "run", lambda call: self._on_worker_ended(call, hosted))
            else:
                hosted.is_idle = True

    def _on_learner_begun(self, call: Call) -> None:
        learner = self._learner
        assert learner is not None
        try:
            begun = self._fleet.result(call)
        except ServiceDied as error:
            if self._restart(learner, error):
                self._call(learner, "begin", self._on_learner_begun)
            return
        except (QueueUnavailable, WeightsUnavailable) as error:
            self._log.message(f"the learner cannot begin yet: {first_line(error)}")
            if self._stops:  # what its last checkpoint holds is all there is
                self._fleet.kill(learner)
                self._is_finishing, self._learner = True, None
            else:
                self._call(learner, "begin", self._on_learner_begun)
            return
        except Exception as error:
            self._fail(error)
            return
        for message in begun["messages"]:
            self._log.message(message)
        learner.tell(begun)
        self._term, self._version = begun["term"], begun["version"]
        if self._version:
            self._log.message(
                f"continuing {self._directory} at step {self._version} of "
                f"{self._config.learner.num_steps}"
            )
        self._table.begin(version=self._version)
        self._measure(begun["candidate"], step=self._version)
        learner.is_idle = True
        if self._state == "starting":
            self._state = "paused" if self._is_paused else "running"

    def _on_step(self, call: Call) -> None:
        learner = self._learner
        assert learner is not None
        try:
            stepped = self._fleet.result(call)
        except (ServiceDied, WeightsUnavailable) as error:
            # Of a step that could not be published nothing must remain.
            self._term = -1  # nothing is drawn before the next term is known
            if self._restart(learner, error):
                self._call(learner, "begin", self._on_learner_begun)
            return
        except Exception as error:
            self._fail(error)
            return
        learner.is_idle = True
        if stepped is None:
            return
        self._version = stepped["version"]
        if self._version > self._furthest:  # it may die again and again at the same step
            self._furthest = self._version
            learner.deaths_in_a_row = 0
        self._table.published(self._version)
        self._record = stepped["record"]
        self._recent.append(self._record)
        is_skipped = bool(self._record["is_skipped"])
        if is_skipped:
            self._skipped_batches |= {self._version - 1}
        if self._version % self._config.operations.log_every == 0 or is_skipped:
            self._log.step(self._record)
        self._measure(stepped["candidate"], step=self._version)
        if self._unscored.are_too_many(stepped["num_invalid"]):
            self._is_paused = True
            self._state = "paused"
            self._log.message(f"paused: {TOO_MANY_UNSCORED}; see the dead letters, then resume")

    def _on_drawn(self, call: Call, sampler: Hosted, draw: Draw, term: int, began: float) -> None:
        try:
            self._fleet.result(call)
        except (ServiceDied, DamagedWeights) as error:
            self._lost(draw, term)
            if self._restart(sampler, error):
                self._begin(sampler)
        except (QueueUnavailable, WeightsNotFound, WeightsUnavailable) as error:
            # On their way back: no draw is of use before the next look at the queue.
            self._lost(draw, term)
            self._draw_at = time.monotonic() + TICK_SECONDS
            self._log.message(f"{sampler.service.name}: {first_line(error)}")
            sampler.is_idle = True
        except StaleTerm:
            self._lost(draw, term)
            sampler.is_idle = True
        except Exception as error:
            self._fail(error)
        else:
            sampler.is_idle = True
            sampler.deaths_in_a_row = 0
            self._draw_seconds.append(time.monotonic() - began)
            if term == self._term:
                self._table.done(draw)

    def _lost(self, draw: Draw, term: int) -> None:
        if term == self._term:
            self._table.lost(draw)

    def _measure(self, candidate: str | None, *, step: int) -> None:
        """Hand a policy to the evaluator; one that still measures another lets this one go."""
        if candidate is None or (self._stops and not self._is_complete):
            return
        waiting = [waiting for waiting, _ in self._candidates]
        if step in (self._measured, *waiting):
            return  # of a step that was taken again: the same file, which is still to be read
        if (self._measured is not None or waiting) and not self._is_complete and step > 0:
            self._evaluations_skipped += 1
            self._meter.count("evaluations_total", outcome="skipped")
            Path(candidate).unlink(missing_ok=True)
            return
        self._candidates.append((step, Path(candidate)))

    def _on_evaluated(self, call: Call, step: int, path: Path) -> None:
        evaluator = self._evaluator
        assert evaluator is not None
        try:
            metrics = self._fleet.result(call)
        except ServiceDied as error:
            self._measured = None
            self._candidates.appendleft((step, path))
            if self._restart(evaluator, error):
                self._begin(evaluator)
            return
        except Exception as error:
            self._fail(error)
            return
        self._measured = None
        evaluator.is_idle = True
        evaluator.deaths_in_a_row = 0
        self._log.evaluation(step, metrics)
        report_evaluation(self._meter, metrics)
        if self._history.add(step, metrics):
            path.replace(self._directory / "best.safetensors")
        else:
            path.unlink(missing_ok=True)

    def _on_finished(self, call: Call) -> None:
        if self._settle_learner(call):
            assert self._learner is not None
            self._fleet.kill(self._learner)
            self._learner = None

    def _settle_learner(self, call: Call) -> bool:
        """Whether a call that only writes went well."""
        learner = self._learner
        assert learner is not None
        try:
            self._fleet.result(call)
        except ServiceDied as error:
            self._is_finishing = False
            self._term = -1
            if self._restart(learner, error):
                self._call(learner, "begin", self._on_learner_begun)
            return False
        except Exception as error:
            self._fail(error)
            return False
        learner.is_idle = True
        return True
