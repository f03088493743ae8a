"""A cluster without processes: hosts are fakes that answer at once, and die when told to.

What they do is real as far as the driver can tell: samplers put into a job queue, the learner
consumes its results, and between two turns of the driver whatever is queued is scored.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, Generic

from rewardtune.cluster.driver.cluster import (
    ArgumentsT,
    Call,
    HostT,
    HostT_co,
    RemoteHost,
    ReplyT,
    ServiceDied,
)
from rewardtune.cluster.hosts.kinds import HostKind
from rewardtune.cluster.hosts.replies import Claimed, Joined, Process, Stepped
from rewardtune.config.run_config import RunConfig
from rewardtune.records import Published
from rewardtune.transport.queue.job_queue import Failure, FailureKind, JobQueue, Term, WorkerRecord

Fault = Callable[[str, str, int], Exception | None]
"""Given the service's name, the method and how often that was called: what goes wrong, if any."""


@dataclass(slots=True, eq=False)
class ScriptedHost(Generic[HostT_co]):
    """Implements ``cluster.RemoteHost``; ``kind`` is the name of its class, without Host."""

    cluster: ScriptedCluster
    name: str
    kind: str
    is_dead: bool = False
    is_drained: bool = False
    is_running: bool = False

    def call(
        self,
        method: Callable[Concatenate[HostT_co, ArgumentsT], ReplyT],
        /,
        *arguments: ArgumentsT.args,
        **options: ArgumentsT.kwargs,
    ) -> Call[ReplyT]:
        return self.cluster.called(self, method.__name__, *arguments, **options)

    def kill(self) -> None:
        self.is_dead = True


@dataclass(slots=True, eq=False)
class ScriptedCall:
    """Implements ``cluster.Call``."""

    service: ScriptedHost[Any]
    method: str
    answer: Any = None
    error: Exception | None = None
    is_over: bool = True

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(slots=True)
class ScriptedCluster:
    """Implements ``cluster.Cluster`` in the driver's thread."""

    config: RunConfig
    queue: JobQueue
    fault: Fault = lambda name, method, number: None
    fails: Callable[[int], bool] = lambda ordinal: False
    """Whether scoring this ordinal fails, each time."""
    saved: int = 0
    """Version of the last checkpoint."""
    measured: list[str] = field(default_factory=list)
    """Contents of the candidates that were evaluated, at that time."""
    drawn: list[tuple[int, int, int]] = field(default_factory=list)
    """Term, policy version and first ordinal of each draw that was tried."""
    taken: list[int] = field(default_factory=list)
    """Versions that steps led to, those taken again included."""
    started_from: list[str | None] = field(default_factory=list)
    """Checkpoints that ranks were told to start from."""
    num_calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    num_scored: int = 0
    evaluations_may_end: threading.Event = field(default_factory=threading.Event)
    services: list[ScriptedHost[Any]] = field(default_factory=list)
    _pending: list[ScriptedCall] = field(default_factory=list)
    _term: int = -1
    version: int = 0
    """Of the learner."""

    def start(
        self, name: str, kind: HostKind[HostT], settings: str, *, num_cpus: int, num_gpus: float
    ) -> RemoteHost[HostT]:
        host = ScriptedHost[HostT](self, name, kind.build.__name__.removesuffix("Host"))
        self.services.append(host)
        return host

    def called(
        self, service: ScriptedHost[Any], method: str, *arguments: Any, **options: Any
    ) -> ScriptedCall:
        call = ScriptedCall(service, method)
        number = self.num_calls[service.name, method] = self.num_calls[service.name, method] + 1
        fault = self.fault(service.name, method, number)
        if isinstance(fault, ServiceDied):
            service.is_dead = True
        if service.is_dead:
            call.error = fault or ServiceDied(f"{service.name} is gone")
        elif fault is not None:
            call.error = fault
        else:
            self._do(call, *arguments, **options)
        return call

    def wait(self, calls: Sequence[Call[Any]], *, timeout_seconds: float) -> list[Call[Any]]:
        self._score()
        waiting = [call for call in calls if isinstance(call, ScriptedCall)]
        for call in waiting:
            self._look_again(call)
        over: list[Call[Any]] = [call for call in waiting if call.is_over]
        if not over:
            time.sleep(0.001)
        return over

    @property
    def num_alive(self) -> int:
        return sum(not service.is_dead for service in self.services)

    def _do(self, call: ScriptedCall, *arguments: Any, **options: Any) -> None:
        match call.service.kind, call.method:
            case "Learner", "begin":
                call.answer = self._begin()
            case "Learner", "join":
                call.answer = self._join()
            case "Learner", "step":
                call.answer = self._step()
            case "LearnerRank", "begin":
                self.started_from.append(None if arguments[0] is None else str(arguments[0]))
                call.answer = Process(os.getpid(), call.service.name)
            case "LearnerRank", "join":
                assert options["address"] == self._meeting_address
                call.answer = Joined(self.saved)
            case "Learner", "save" | "finish":
                self.saved = self.version
            case _, "begin":
                call.answer = Process(os.getpid(), f"{call.service.name}:{id(call.service)}")
            case "Sampler", "draw":
                self._draw(*arguments, **options)
            case "Evaluator", "evaluate":
                call.answer, call.is_over = arguments[0], False
            case "RewardWorker", "run":
                call.service.is_running, call.is_over = True, False
            case "RewardWorker", "drain":
                call.service.is_drained = True

    def _look_again(self, call: ScriptedCall) -> None:
        if call.is_over:
            return
        if call.service.is_dead:
            call.error, call.is_over = ServiceDied(f"{call.service.name} is gone"), True
        elif call.method == "run" and call.service.is_drained:
            call.answer, call.is_over = 0, True
        elif call.method == "evaluate" and self.evaluations_may_end.is_set():
            self.measured.append(call.answer.read_text())
            call.answer, call.is_over = {"map": float(len(self.measured))}, True

    def _begin(self) -> Claimed:
        self._term += 1
        return Claimed(
            process=Process(os.getpid(), ""),
            term=self._term,
            messages=(),
            checkpoint=Path(f"checkpoint-{self.saved}") if self.saved else None,
            meeting_address=self._meeting_address,
        )

    @property
    def _meeting_address(self) -> str:
        """Another one for each start, as ranks of an earlier one must not come."""
        return f"learner:{self._term}"

    def _join(self) -> Joined:
        self.version = self.saved
        batch_size = self.config.learner.batch_size
        capacity = (self.config.depth + 1) * batch_size
        term = Term(self._term, b"spec", capacity)
        self.queue.open_term(term, frontier=self.version * batch_size)
        return Joined(self.version, candidate=None if self.saved else self._candidate())

    def _step(self) -> Stepped | None:
        size = self.config.learner.batch_size
        ordinals = range(self.version * size, (self.version + 1) * size)
        results = self.queue.results(self._term, ordinals)
        if len(results) < size:
            return None
        self.version += 1
        self.taken.append(self.version)
        self.queue.consume(self._term, before=ordinals.stop)
        if self.version % self.config.operations.checkpoint_every == 0:
            self.saved = self.version
        every = self.config.evaluation.every_steps
        is_due = self.version == self.config.learner.num_steps or (
            every is not None and self.version % every == 0
        )
        return Stepped(
            self.version,
            record={"step": self.version, "seconds": 0.1, "is_skipped": 0.0},
            num_invalid=sum(result.dead is not None for result in results.values()),
            candidate=self._candidate() if is_due else None,
        )

    def _candidate(self) -> Path | None:
        if self.config.data.holdout is None:
            return None
        path = self.config.operations.directory / f"candidate-{self.version}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self.version))
        return path

    def _draw(self, ordinals: range, *, published: Published) -> None:
        version = published.policy_version
        assert version <= self.version, "drawn before its weights were published"
        self.drawn.append((published.term, version, ordinals.start))
        for ordinal in ordinals:
            self.queue.put(published.term, ordinal, b"group %d" % ordinal)

    def _score(self) -> None:
        workers = [s for s in self.services if s.is_running and not s.is_dead]
        if not workers or self._term < 0:
            return
        name = workers[0].name
        for job in self.queue.lease(name, reward_digest="", max_jobs=100, timeout_seconds=0.0):
            if self.fails(job.ordinal):
                self.queue.fail(job, name, Failure(FailureKind.EXCEPTION, "beyond me"))
            else:
                self.queue.commit(job, name, b"scored " + job.body)
            self.num_scored += 1
        for worker in workers:
            record = WorkerRecord(
                worker=worker.name,
                reward_digest="",
                dataset_digest="",
                state="ready",
                num_scorers=1,
                metrics_address=f"{worker.name}:{id(worker)}",
                num_groups=self.num_scored,
            )
            self.queue.heartbeat(record, ttl_seconds=60.0)
