"""One service of a run as its driver sees it, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, Generic

from rewardtune.cluster.driver.cluster import (
    ArgumentsT,
    Call,
    HostT_co,
    RemoteHost,
    ReplyT,
    ReplyT_co,
)
from rewardtune.cluster.hosts.kinds import HostKind
from rewardtune.cluster.hosts.replies import Process


@dataclass(slots=True, eq=False)
class Service(Generic[HostT_co]):
    """A service that is kept alive: its host now, and how it fares."""

    name: str
    """Of the service, not of its process: one that is started again keeps it."""
    kind: HostKind[HostT_co]
    host: RemoteHost[HostT_co]
    is_idle: bool = False
    """It has begun and does nothing."""
    restarts: int = 0
    deaths_in_a_row: int = 0
    pid: int = 0
    """0: it has not begun."""
    metrics_address: str = ""
    """Of a service that is starting again: where it was before."""

    @property
    def role(self) -> str:
        return self.kind.role.value

    @property
    def state(self) -> str:
        if self.pid == 0:
            return "starting"
        return "idle" if self.is_idle else "busy"

    def has_begun(self, process: Process) -> None:
        self.pid, self.metrics_address = process.pid, process.metrics_address

    def request(
        self,
        method: Callable[Concatenate[HostT_co, ArgumentsT], ReplyT],
        /,
        *arguments: ArgumentsT.args,
        **options: ArgumentsT.kwargs,
    ) -> Request[ReplyT]:
        """What to call: ``sampler.request(SamplerHost.draw, ordinals, published=published)``."""
        return Request(self, method, arguments, options)


@dataclass(frozen=True, slots=True)
class Request(Generic[ReplyT_co]):
    """A call that can be made, more than once if need be; ``Service.request`` checks its types."""

    service: Service[Any]
    method: Callable[..., ReplyT_co]
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    def send(self) -> Call[ReplyT_co]:
        """To the host that the service has now."""
        return self.service.host.call(self.method, *self.arguments, **self.options)
