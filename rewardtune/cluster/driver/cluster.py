"""What the driver needs of whatever runs its services: start, call, wait, stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class ServiceDied(RuntimeError):
    """The process of a service is gone; what it was doing may or may not have happened."""


class Service(Protocol):
    """A plain object that lives in a process of its own."""

    @property
    def name(self) -> str:
        """Of the service, not of the process: a restarted one keeps it."""
        ...


class Call(Protocol):
    """One method call on its way; hashable."""

    def __hash__(self) -> int: ...


class Cluster(Protocol):
    """Processes on one machine or on many. Nothing here blocks but ``wait``."""

    def start(
        self, name: str, build: type[Any], settings: str, *, num_cpus: int, num_gpus: float
    ) -> Service:
        """Make ``build(settings)`` in a process of its own; the process may come up later."""
        ...

    def call(self, service: Service, method: str, *arguments: Any) -> Call:
        """Calls of one service happen one after the other, in this order."""
        ...

    def wait(self, calls: Sequence[Call], *, timeout_seconds: float) -> list[Call]:
        """Those that are over, at once if there are any."""
        ...

    def result(self, call: Call) -> Any:
        """Of a call that is over.

        Raises:
            ServiceDied: the process is gone.
            Exception: what the method raised.
        """
        ...

    def kill(self, service: Service) -> None:
        """End its process at once."""
        ...
