"""What the driver needs of whatever runs its hosts: start, call, wait, stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rewardtune.cluster.hosts.kinds import HostKind

ArgumentsT = ParamSpec("ArgumentsT")
HostT = TypeVar("HostT")
HostT_co = TypeVar("HostT_co", covariant=True)
ReplyT = TypeVar("ReplyT")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class ServiceDied(RuntimeError):
    """The process of a service is gone; what it was doing may or may not have happened."""


class Call(Protocol[ReplyT_co]):
    """One method call on its way; hashable."""

    def __hash__(self) -> int: ...

    def result(self) -> ReplyT_co:
        """Of a call that is over.

        Raises:
            ServiceDied: the process is gone.
            Exception: what the method raised.
        """
        ...


class RemoteHost(Protocol[HostT_co]):
    """A host in a process of its own."""

    def call(
        self,
        method: Callable[Concatenate[HostT_co, ArgumentsT], ReplyT],
        /,
        *arguments: ArgumentsT.args,
        **options: ArgumentsT.kwargs,
    ) -> Call[ReplyT]:
        """Calls of one host happen one after the other, in this order.

        Args:
            method: of the host's class; a subclass may have its own of that name.
        """
        ...

    def kill(self) -> None:
        """End its process at once."""
        ...


class Cluster(Protocol):
    """Processes on one machine or on many. Nothing here blocks but ``wait``."""

    def start(
        self, name: str, kind: HostKind[HostT], settings: str, *, num_cpus: int, num_gpus: float
    ) -> RemoteHost[HostT]:
        """Make ``kind.build(settings)`` in a process of its own, which may come up later.

        Args:
            name: of the service; one that is started again keeps it.
        """
        ...

    def wait(self, calls: Sequence[Call[Any]], *, timeout_seconds: float) -> list[Call[Any]]:
        """Those that are over, at once if there are any."""
        ...
