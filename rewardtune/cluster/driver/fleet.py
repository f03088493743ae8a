"""The services of a run, whose processes may die: start, begin, call, start again, end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rewardtune.cluster.driver.cluster import (
    Call,
    Cluster,
    HostT,
    RemoteHost,
    ReplyT,
    ServiceDied,
)
from rewardtune.cluster.driver.service import Request, Service
from rewardtune.cluster.hosts.kinds import HostKind, LoneHost
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost
from rewardtune.run.log import RunLog
from rewardtune.transport.queue.job_queue import QueueUnavailable
from rewardtune.transport.telemetry.meter import Meter
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.weights.weight_store import WeightsUnavailable

_MAX_DEATHS = 5
"""Of one service in a row without any work done between them: something is wrong with it."""


class RunFailed(RuntimeError):
    """The run cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Placement:
    """How many of each service, what each asks of the cluster, and what all are told."""

    settings: str
    """``HostSettings`` as JSON."""
    secret_settings: str
    """The same with the run's secret, for those who sign with it."""
    num_learners: int
    num_samplers: int
    num_reward_workers: int
    num_cpus: Mapping[Role, int]
    """Empty where the cluster's count of them is not to be kept."""
    num_gpus: Mapping[Role, float]


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
        self._calls: dict[Call[Any], Callable[[Call[Any]], object]] = {}
        self.failure: Exception | None = None
        self.is_ending = False
        """Nobody draws or scores any more: who did, and died, is not started again."""

    def start(self, name: str, kind: HostKind[HostT]) -> Service[HostT]:
        return Service(name, kind, self._new(name, kind))

    def fail(self, error: Exception) -> None:
        """The run cannot go on."""
        self.failure = self.failure or error

    def begin(self, service: Service[LoneHost], then: Callable[[], None]) -> None:
        """Call a host's ``begin`` until it has begun."""
        self.call(service.request(LoneHost.begin), lambda call: self._on_begun(call, service, then))

    def revive(self, service: Service[Any], error: Exception) -> bool:
        """Start a service again that died; False if that is no use any more, or in vain."""
        if self.is_ending and not service.kind.is_needed_to_the_end:
            return False
        service.deaths_in_a_row += 1
        if service.deaths_in_a_row > _MAX_DEATHS:
            service.is_idle = False
            self.fail(
                RunFailed(
                    f"{service.name} died {service.deaths_in_a_row} times without doing anything "
                    f"in between, last: {error}"
                )
            )
            return False
        self._meter.count("service_restarts_total", service=service.role)
        self._log.message(f"{service.name} died and is started again: {first_line(error)}")
        self.replace(service)
        return True

    def replace(self, service: Service[Any]) -> None:
        """Start a service afresh, in another process."""
        # It may only have been cut off; two of it would be one too many.
        service.host.kill()
        service.is_idle = False
        service.restarts += 1
        service.host, service.pid = self._new(service.name, service.kind), 0

    def call(self, request: Request[ReplyT], then: Callable[[Call[ReplyT]], object]) -> None:
        """Call a method; ``then`` is given the call when it is over."""
        request.service.is_idle = False
        self._calls[request.send()] = then

    def settle(self, *, timeout_seconds: float) -> None:
        """Wait for calls to end, and follow those that have."""
        for call in self._cluster.wait(list(self._calls), timeout_seconds=timeout_seconds):
            self._calls.pop(call)(call)

    def let_go(self, worker: Service[RewardWorkerHost]) -> None:
        """Ask a reward worker to finish what it holds, and expect nothing more of it."""
        self._calls[worker.request(RewardWorkerHost.drain).send()] = lambda call: None

    def end(self, services: Iterable[Service[Any]]) -> None:
        """Nobody has anything to lose: the next term forgets what reward workers hold."""
        for service in services:
            service.host.kill()

    def _on_begun(
        self, call: Call[Process], service: Service[LoneHost], then: Callable[[], None]
    ) -> None:
        try:
            service.has_begun(call.result())
        except ServiceDied as error:
            if self.revive(service, error):
                self.begin(service, then)
        except (QueueUnavailable, WeightsUnavailable) as error:
            self._log.message(f"{service.name} cannot begin yet: {first_line(error)}")
            self.begin(service, then)
        except Exception as error:
            self.fail(error)
        else:
            then()

    def _new(self, name: str, kind: HostKind[HostT]) -> RemoteHost[HostT]:
        return self._cluster.start(
            name,
            kind,
            self._placement.secret_settings if kind.knows_secret else self._placement.settings,
            num_cpus=self._placement.num_cpus.get(kind.role, 0),
            num_gpus=self._placement.num_gpus.get(kind.role, 0.0),
        )


def first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__
