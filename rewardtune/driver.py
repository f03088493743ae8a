"""The driver of a run: places draws, starts what died, lists what happened.

It decides no number. One thread; every service works in a process of its own, and the driver
only waits for calls to end. ``draw_table`` decides what to draw, ``history`` what was best.
"""

from __future__ import annotations

import contextlib
import queue as thread_queue
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rewardtune.cluster import Call, Cluster, Service, ServiceDied
from rewardtune.config import RunConfig
from rewardtune.draw_table import Draw, DrawTable
from rewardtune.history import History
from rewardtune.local import RunResult, finished
from rewardtune.run_log import RunLog
from rewardtune.services import EvaluatorHost, LearnerHost, RewardWorkerHost, SamplerHost
from transport.job_queue import JobQueue, QueueStats, QueueUnavailable
from transport.term import StaleTerm

TICK_SECONDS = 1.0
"""Between two scans of the queue; a group that fell out of it is found at the second."""
_WAIT_SECONDS = 0.1
_MAX_DEATHS = 5
"""Of one service in a row without any work done between them: something is wrong with it."""
_INVALID_WINDOW = 4
_MAX_INVALID_RATIO = 0.5


class RunFailed(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


@dataclass(slots=True)
class _Hosted:
    """A service, the kind it is, and how it fares."""

    service: Service
    kind: str
    is_idle: bool = False
    """It has begun and does nothing."""
    restarts: int = 0
    deaths_in_a_row: int = 0
    pid: int = 0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Placement:
    """How many of each service, with which GPUs; and what each is told."""

    settings: str
    num_samplers: int
    sampler_gpus: float
    learner_gpus: float
    num_reward_workers: int


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
    ) -> None:
        """
        Args:
            config: pinned.
            queue: the driver's own connection.
        """
        self._config = config
        self._log = log
        self._cluster = cluster
        self._queue = queue
        self._placement = placement
        self._directory = config.operations.directory
        self._history = History(self._directory, metric=config.evaluation.metric)
        self._table = DrawTable(
            batch_size=config.learner.batch_size,
            micro_batch=config.sampler.micro_batch,
            num_batches=config.learner.num_steps,
            drawn_with=config.drawn_with,
            depth=config.depth,
        )
        self._calls: dict[Call, Callable[[Call], object]] = {}
        self._commands: thread_queue.SimpleQueue[Callable[[], None]] = thread_queue.SimpleQueue()
        self._samplers: list[_Hosted] = []
        self._workers: list[_Hosted] = []
        self._learner: _Hosted | None = None
        self._evaluator: _Hosted | None = None
        self._num_workers_wanted = placement.num_reward_workers
        self._num_workers_started = 0
        self._term = -1
        self._version = 0
        self._is_paused = False
        self._wants_checkpoint = False
        self._is_finishing = False
        self._stops = False
        self._failure: Exception | None = None
        self._candidates: deque[tuple[int, Path]] = deque()
        self._evaluations_skipped = 0
        self._invalid: deque[int] = deque(maxlen=_INVALID_WINDOW)
        self._record: Mapping[str, float] = {}
        self._stats: QueueStats | None = None
        self._next_tick = 0.0
        self._state = "starting"

    # What an operator may ask for, from any thread.

    def drain(self) -> None:
        """Finish or abandon the step, write a checkpoint, end."""
        self._commands.put(self._stop)

    def pause(self, *, is_paused: bool) -> None:
        """No new draw and no new step; or go on."""

        def apply() -> None:
            self._is_paused = is_paused

        self._commands.put(apply)

    def scale_reward_workers(self, count: int) -> None:
        """So many workers inside Ray; those that go finish what they hold."""

        def apply() -> None:
            self._num_workers_wanted = count

        self._commands.put(apply)

    def checkpoint(self) -> None:
        """Write one after the step that is being taken."""

        def apply() -> None:
            self._wants_checkpoint = True

        self._commands.put(apply)

    def status(self) -> dict[str, Any]:
        """The run as it is now, as plain JSON values."""
        config, record = self._config, self._record
        hosted = [h for h in (self._learner, self._evaluator) if h is not None]
        return {
            "run": config.run_name,
            "state": self._state,
            "directory": str(self._directory),
            "term": self._term,
            "step": self._version,
            "num_steps": config.learner.num_steps,
            "depth": config.depth,
            "reward": record.get("reward"),
            "step_seconds": record.get("seconds"),
            "wait_ratio": _ratio(record.get("seconds_wait"), record.get("seconds")),
            "best": self._history.best,
            "evaluations_skipped": self._evaluations_skipped,
            "redraws": self._table.num_redraws,
            "draws_in_flight": self._table.num_in_flight,
            "services": [
                {
                    "name": h.service.name,
                    "kind": h.kind,
                    "pid": h.pid,
                    "is_idle": h.is_idle,
                    "restarts": h.restarts,
                }
                for h in [*hosted, *self._samplers, *self._workers]
            ],
            "reward_workers_wanted": self._num_workers_wanted,
            "queue": asdict(self._stats) if self._stats else None,
        }

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
            self._end_all()
        if self._failure is not None:
            raise self._failure
        self._state = "finished" if self._version >= self._config.learner.num_steps else "stopped"
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
        for call in self._cluster.wait(list(self._calls), timeout_seconds=_WAIT_SECONDS):
            self._calls.pop(call)(call)

    def _is_over(self) -> bool:
        return self._failure is not None or (self._is_finishing and self._learner is None)

    def _place(self) -> None:
        """Give everyone who is idle what there is to do."""
        if self._is_paused:
            return
        learner = self._learner
        if learner is not None and learner.is_idle and not self._is_finishing:
            if self._wants_checkpoint:
                self._wants_checkpoint = False
                self._call(learner, "save", self._settle_learner)
            elif self._stops or self._version >= self._config.learner.num_steps:
                if not self._candidates and not self._evaluates():
                    self._is_finishing = True
                    self._call(learner, "finish", self._on_finished)
            else:
                self._call(learner, "step", self._on_step)
        if not self._stops and self._term >= 0:
            for sampler in self._samplers:
                if sampler.is_idle and (draw := self._table.next()) is not None:
                    self._draw(sampler, draw)
        evaluator = self._evaluator
        if evaluator is not None and evaluator.is_idle and self._candidates:
            step, path = self._candidates.popleft()
            self._call(
                evaluator, "evaluate", lambda call: self._on_evaluated(call, step, path), str(path)
            )

    def _evaluates(self) -> bool:
        return self._evaluator is not None and not self._evaluator.is_idle

    def _tick(self) -> None:
        """Look at the queue: what fell out of it, and how it fares."""
        self._keep_workers()
        if self._term < 0:
            return
        try:
            ordinals = self._table.settled_ordinals()
            missing = self._queue.missing(self._term, ordinals) if ordinals else []
            self._stats = self._queue.stats()
        except (QueueUnavailable, StaleTerm):
            return  # the learner reopens it, or ends the run
        if again := self._table.reconcile(missing):
            self._log.message(f"{len(again)} micro-batches fell out of the queue: drawn again")

    # Starting and ending.

    def _start_all(self) -> None:
        placement = self._placement
        self._learner = self._start("learner", "learner", LearnerHost, placement.learner_gpus)
        self._call(self._learner, "begin", self._on_learner_begun)
        for number in range(placement.num_samplers):
            sampler = self._start(
                f"sampler-{number}", "sampler", SamplerHost, placement.sampler_gpus
            )
            self._samplers.append(sampler)
            self._begin(sampler)
        self._keep_workers()
        if self._config.data.holdout is not None:
            self._evaluator = self._start("evaluator", "evaluator", EvaluatorHost, 0.0)
            self._begin(self._evaluator)

    def _start(self, name: str, kind: str, build: type[Any], num_gpus: float) -> _Hosted:
        service = self._cluster.start(name, build, self._placement.settings, num_gpus=num_gpus)
        return _Hosted(service, kind)

    def _restart(self, hosted: _Hosted, error: Exception) -> bool:
        """Start a service again that died; False if that is no use any more."""
        hosted.deaths_in_a_row += 1
        hosted.is_idle = False
        if hosted.deaths_in_a_row > _MAX_DEATHS:
            self._fail(
                RunFailed(
                    f"{hosted.service.name} died {hosted.deaths_in_a_row} times without doing "
                    f"anything in between, last: {error}"
                )
            )
            return False
        if self._is_finishing and hosted.kind != "learner":
            return False
        hosted.restarts += 1
        self._log.message(f"{hosted.service.name} died and is started again: {_first_line(error)}")
        build = {"learner": LearnerHost, "sampler": SamplerHost, "evaluator": EvaluatorHost}
        fresh = self._start(
            hosted.service.name,
            hosted.kind,
            build.get(hosted.kind, RewardWorkerHost),
            {"learner": self._placement.learner_gpus, "sampler": self._placement.sampler_gpus}.get(
                hosted.kind, 0.0
            ),
        )
        hosted.service, hosted.started = fresh.service, fresh.started
        return True

    def _stop(self) -> None:
        if not self._stops:
            self._stops = True
            self._is_paused = False
            self._state = "draining"
            self._candidates.clear()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._state = "failed"

    def _end_all(self) -> None:
        """Workers give back what they hold; nobody else has anything to lose."""
        draining = [self._drain_worker(worker) for worker in self._workers]
        deadline = time.monotonic() + 10.0
        while draining and time.monotonic() < deadline:
            for call in self._cluster.wait(draining, timeout_seconds=0.5):
                draining.remove(call)
        for hosted in [*self._workers, *self._samplers, self._learner, self._evaluator]:
            if hosted is not None:
                self._cluster.kill(hosted.service)

    # Reward workers.

    def _keep_workers(self) -> None:
        """As many as are wanted: start what is missing, drain what is too many."""
        if self._stops or self._is_finishing:
            return
        while len(self._workers) < self._num_workers_wanted:
            name = f"reward-worker-{self._num_workers_started}"
            self._num_workers_started += 1
            worker = self._start(name, "reward_worker", RewardWorkerHost, 0.0)
            self._workers.append(worker)
            self._run_worker(worker)
        while len(self._workers) > self._num_workers_wanted:
            worker = self._workers.pop()
            self._calls[self._drain_worker(worker)] = lambda call: None

    def _run_worker(self, worker: _Hosted) -> None:
        self._call(worker, "run", lambda call: self._on_worker_ended(call, worker))
        self._call(worker, "pid", lambda call: self._on_worker_running(call, worker))

    def _on_worker_running(self, call: Call, worker: _Hosted) -> None:
        with contextlib.suppress(ServiceDied):  # its run says so too
            worker.pid = self._cluster.result(call)

    def _drain_worker(self, worker: _Hosted) -> Call:
        return self._cluster.call(worker.service, "drain")

    def _on_worker_ended(self, call: Call, worker: _Hosted) -> None:
        try:
            self._cluster.result(call)
        except ServiceDied as error:
            if worker in self._workers and self._restart(worker, error):
                self._run_worker(worker)
        except Exception as error:
            self._fail(error)
        else:
            self._cluster.kill(worker.service)

    # What calls come to.

    def _call(
        self, hosted: _Hosted, method: str, then: Callable[[Call], object], *arguments: Any
    ) -> None:
        hosted.is_idle = False
        self._calls[self._cluster.call(hosted.service, method, *arguments)] = then

    def _draw(self, sampler: _Hosted, draw: Draw) -> None:
        term = self._term
        self._call(
            sampler,
            "draw",
            lambda call: self._on_drawn(call, sampler, draw, term),
            term,
            draw.policy_version,
            draw.first_ordinal,
            draw.num_groups,
        )

    def _begin(self, hosted: _Hosted) -> None:
        self._call(hosted, "begin", lambda call: self._on_begun(call, hosted))

    def _on_begun(self, call: Call, hosted: _Hosted) -> None:
        try:
            hosted.pid = self._cluster.result(call)["pid"]
        except ServiceDied as error:
            if self._restart(hosted, error):
                self._begin(hosted)
        except Exception as error:
            self._fail(error)
        else:
            hosted.is_idle = True

    def _on_learner_begun(self, call: Call) -> None:
        learner = self._learner
        assert learner is not None
        try:
            begun = self._cluster.result(call)
        except ServiceDied as error:
            if self._restart(learner, error):
                self._call(learner, "begin", self._on_learner_begun)
            return
        except QueueUnavailable as error:
            self._log.message(f"the learner cannot reach the queue: {_first_line(error)}")
            self._call(learner, "begin", self._on_learner_begun)
            return
        except Exception as error:
            self._fail(error)
            return
        for message in begun["messages"]:
            self._log.message(message)
        self._term, self._version, learner.pid = begun["term"], begun["version"], begun["pid"]
        if self._version:
            self._log.message(
                f"continuing {self._directory} at step {self._version} of "
                f"{self._config.learner.num_steps}"
            )
        self._table.begin(version=self._version)
        self._measure(begun["candidate"], step=self._version)
        learner.is_idle = True
        if self._state == "starting":
            self._state = "running"

    def _on_step(self, call: Call) -> None:
        learner = self._learner
        assert learner is not None
        try:
            stepped = self._cluster.result(call)
        except ServiceDied as error:
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
        learner.deaths_in_a_row = 0
        self._version = stepped["version"]
        self._table.published(self._version)
        self._record = stepped["record"]
        is_skipped = bool(self._record["is_skipped"])
        if self._version % self._config.operations.log_every == 0 or is_skipped:
            self._log.step(self._record)
        self._measure(stepped["candidate"], step=self._version)
        self._watch_invalid(stepped["num_invalid"])

    def _watch_invalid(self, num_invalid: int) -> None:
        self._invalid.append(num_invalid)
        limit = _MAX_INVALID_RATIO * self._config.learner.batch_size * _INVALID_WINDOW
        if sum(self._invalid) > limit:
            self._invalid.clear()
            self._is_paused = True
            self._state = "paused"
            self._log.message(
                f"paused: more than half of the groups of the last {_INVALID_WINDOW} batches could "
                "not be scored; see the dead letters, then resume"
            )

    def _on_drawn(self, call: Call, sampler: _Hosted, draw: Draw, term: int) -> None:
        try:
            self._cluster.result(call)
        except ServiceDied as error:
            self._lost(draw, term)
            if self._restart(sampler, error):
                self._begin(sampler)
        except (QueueUnavailable, LookupError, StaleTerm) as error:
            # The queue or the weights are on their way back, or the term has just ended.
            self._lost(draw, term)
            self._log.message(f"{sampler.service.name}: {_first_line(error)}")
            sampler.is_idle = True
        except Exception as error:
            self._fail(error)
        else:
            sampler.is_idle = True
            sampler.deaths_in_a_row = 0
            if term == self._term:
                self._table.done(draw)

    def _lost(self, draw: Draw, term: int) -> None:
        if term == self._term:
            self._table.lost(draw)

    def _measure(self, candidate: str | None, *, step: int) -> None:
        """Hand a policy to the evaluator; one that still measures another lets this one go."""
        if candidate is None or self._stops:
            return
        is_last = step >= self._config.learner.num_steps
        if (self._evaluates() or self._candidates) and not is_last and step > 0:
            self._evaluations_skipped += 1
            Path(candidate).unlink(missing_ok=True)
            return
        self._candidates.append((step, Path(candidate)))

    def _on_evaluated(self, call: Call, step: int, path: Path) -> None:
        evaluator = self._evaluator
        assert evaluator is not None
        try:
            metrics = self._cluster.result(call)
        except ServiceDied as error:
            self._candidates.appendleft((step, path))
            if self._restart(evaluator, error):
                self._begin(evaluator)
            return
        except Exception as error:
            self._fail(error)
            return
        evaluator.is_idle = True
        evaluator.deaths_in_a_row = 0
        self._log.evaluation(step, metrics)
        if self._history.add(step, metrics):
            path.replace(self._directory / "best.safetensors")
        else:
            path.unlink(missing_ok=True)

    def _on_finished(self, call: Call) -> None:
        if self._settle_learner(call):
            assert self._learner is not None
            self._cluster.kill(self._learner.service)
            self._learner = None

    def _settle_learner(self, call: Call) -> bool:
        """Whether a call that only writes went well."""
        learner = self._learner
        assert learner is not None
        try:
            self._cluster.result(call)
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


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
