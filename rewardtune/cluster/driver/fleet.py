"""The services of a run, as processes that may die: start, begin, call, start again, end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rewardtune.cluster.driver.cluster import Call, Cluster, Service, ServiceDied
from rewardtune.cluster.hosts.hosts import EvaluatorHost, LearnerHost, SamplerHost
from rewardtune.cluster.hosts.learner_rank import LearnerRankHost
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost
from rewardtune.run.log import RunLog
from rewardtune.transport.queue.job_queue import QueueUnavailable
from rewardtune.transport.telemetry.meter import Meter
from rewardtune.transport.weights.weight_store import WeightsUnavailable

_HOSTS: Mapping[str, type[Any]] = {
    "learner": LearnerHost,
    "learner_rank": LearnerRankHost,
    "sampler": SamplerHost,
    "evaluator": EvaluatorHost,
    "reward_worker": RewardWorkerHost,
}
_MAX_DEATHS = 5
"""Of one service in a row without any work done between them: something is wrong with it."""


class RunFailed(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How many of each service, what each asks of the cluster, and what all are told."""

    settings: str
    num_learners: int
    num_samplers: int
    num_reward_workers: int
    num_cpus: Mapping[str, int]
    """By kind; none where the cluster's count of them is not to be kept."""
    num_gpus: Mapping[str, float]
    """By kind."""


@dataclass(slots=True, eq=False)
class Hosted:
    """A service, the kind it is, and how it fares."""

    service: Service
    kind: str
    is_idle: bool = False
    """It has begun and does nothing."""
    restarts: int = 0
    deaths_in_a_row: int = 0
    pid: int = 0
    metrics_address: str = ""

    @property
    def state(self) -> str:
        if self.pid == 0:
            return "starting"
        return "idle" if self.is_idle else "busy"

    def tell(self, whereabouts: Mapping[str, Any]) -> None:
        """Take in where its process is."""
        self.pid = whereabouts["pid"]
        self.metrics_address = whereabouts["metrics_address"]


class Fleet:
    """Starts services and remembers what each call that is on its way leads to.

    The first error that no restart mends is ``failure``: the run is over.
    """

    def __init__(
        self, cluster: Cluster, placement: Placement, *, log: RunLog, meter: Meter
    ) -> None:
        self._cluster = cluster
        self._placement = placement
        self._log = log
        self._meter = meter
        self._calls: dict[Call, Callable[[Call], object]] = {}
        self.failure: Exception | None = None
        self.is_ending = False
        """Nobody draws or scores any more: who did, and died, is not started again."""

    def start(self, name: str, kind: str) -> Hosted:
        return Hosted(self._new(name, kind), kind)

    def fail(self, error: Exception) -> None:
        """The run cannot go on."""
        self.failure = self.failure or error

    def begin(self, hosted: Hosted, then: Callable[[], None]) -> None:
        """Call a service's ``begin`` until it has begun."""
        self.call(hosted, "begin", lambda call: self._on_begun(call, hosted, then))

    def revive(self, hosted: Hosted, error: Exception) -> bool:
        """Start a service again that died; False if that is no use any more, or in vain."""
        if self.is_ending and hosted.kind in ("sampler", "reward_worker"):
            return False
        hosted.deaths_in_a_row += 1
        name = hosted.service.name
        if hosted.deaths_in_a_row > _MAX_DEATHS:
            hosted.is_idle = False
            self.fail(
                RunFailed(
                    f"{name} died {hosted.deaths_in_a_row} times without doing anything in "
                    f"between, last: {error}"
                )
            )
            return False
        self._meter.count("service_restarts_total", service=hosted.kind)
        self._log.message(f"{name} died and is started again: {first_line(error)}")
        self.replace(hosted)
        return True

    def replace(self, hosted: Hosted) -> None:
        """Start a service afresh, in another process."""
        # It may only have been cut off; two of it would be one too many.
        self.kill(hosted)
        hosted.is_idle = False
        hosted.restarts += 1
        hosted.service, hosted.pid = self._new(hosted.service.name, hosted.kind), 0

    def call(
        self, hosted: Hosted, method: str, then: Callable[[Call], object], *arguments: Any
    ) -> None:
        """Call a method; ``then`` is given the call when it is over."""
        hosted.is_idle = False
        self._calls[self._cluster.call(hosted.service, method, *arguments)] = then

    def settle(self, *, timeout_seconds: float) -> None:
        """Wait for calls to end, and follow those that have."""
        for call in self._cluster.wait(list(self._calls), timeout_seconds=timeout_seconds):
            self._calls.pop(call)(call)

    def result(self, call: Call) -> Any:
        """As ``Cluster.result``."""
        return self._cluster.result(call)

    def let_go(self, worker: Hosted) -> None:
        """Ask a reward worker to finish what it holds, and expect nothing more of it."""
        self._calls[self._cluster.call(worker.service, "drain")] = lambda call: None

    def kill(self, hosted: Hosted) -> None:
        self._cluster.kill(hosted.service)

    def end(self, services: Iterable[Hosted | None]) -> None:
        """Nobody has anything to lose: the next term forgets what reward workers hold."""
        for hosted in services:
            if hosted is not None:
                self.kill(hosted)

    def _on_begun(self, call: Call, hosted: Hosted, then: Callable[[], None]) -> None:
        try:
            hosted.tell(self.result(call))
        except ServiceDied as error:
            if self.revive(hosted, error):
                self.begin(hosted, then)
        except (QueueUnavailable, WeightsUnavailable) as error:
            self._log.message(f"{hosted.service.name} cannot begin yet: {first_line(error)}")
            self.begin(hosted, then)
        except Exception as error:
            self.fail(error)
        else:
            then()

    def _new(self, name: str, kind: str) -> Service:
        return self._cluster.start(
            name,
            _HOSTS[kind],
            self._placement.settings,
            num_cpus=self._placement.num_cpus.get(kind, 0),
            num_gpus=self._placement.num_gpus.get(kind, 0.0),
        )


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
