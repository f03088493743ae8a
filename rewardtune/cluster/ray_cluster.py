"""Ray behind the driver's ``Cluster``: one to work on, and hosts as its actors."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    AuthenticationError,
    GetTimeoutError,
    RayActorError,
    RayTaskError,
)

from rewardtune.cluster.driver.cluster import (
    ArgumentsT,
    Call,
    HostT,
    HostT_co,
    RemoteHost,
    ReplyT,
    ReplyT_co,
    ServiceDied,
)
from rewardtune.cluster.hosts.kinds import HostKind
from rewardtune.cluster.ray_token import HOW_TO, settle_own_auth_mode
from rewardtune.config.run_config import ConfigError, RunConfig

_OBJECT_STORE_BYTES = 500_000_000
"""Of a Ray that is started for the run: a few versions of a small policy."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The only switch that keeps a node on the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_NOTICE_SECONDS = 1.0
_PASSED_ON = ("OMP_WAIT_POLICY", "PYTHONPATH", "HF_HUB_OFFLINE", "REWARDTUNE_CODE")


@contextlib.contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """A Ray to work on: the caller's, the one at the configured address, or one of our own."""
    if ray.is_initialized():
        yield
        return
    namespace, address = f"rewardtune-{config.run_name}", config.cluster.address
    # For an address, too: the mode must not hang on a file in somebody's home folder.
    settle_own_auth_mode()
    if address is not None:
        try:
            ray.init(address, namespace=namespace, log_to_driver=False)
        except AuthenticationError as error:
            raise ConfigError(
                f"the Ray cluster at cluster.address = '{address}' refuses this process: {HOW_TO}"
            ) from error
        except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"cluster.address = '{address}': no Ray cluster answers there "
                f"({str(error).splitlines()[0]}); leave it out to start Ray on this machine"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Short, since unix sockets in it may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=os.cpu_count(),
            num_gpus=_num_gpus(config),
            namespace=namespace,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()


def end_actor(name: str, namespace: str) -> None:
    """At once, so that its name is free; nothing happens where there is none."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace))


class DrainNotice:
    """Whether Ray says that this process's node goes away: preempted, or SIGTERM to its Ray.

    Ray's processes then live for another 30 s (``RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S``).
    """

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._due = 0.0
        self._is_given = False

    def __bool__(self) -> bool:
        """Asks at most once a second."""
        if not self._is_given and time.monotonic() >= self._due:
            self._due = time.monotonic() + _NOTICE_SECONDS
            # Ray tells it nowhere else; its own training library asks in the same place.
            self._is_given = self._node in ray._private.state.state.get_draining_nodes()
        return self._is_given


class RayCluster:
    """Implements ``cluster.Cluster``: every host is an actor."""

    def start(
        self, name: str, kind: HostKind[HostT], settings: str, *, num_cpus: int, num_gpus: float
    ) -> RemoteHost[HostT]:
        remote = ray.remote(kind.build).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=0,
            max_concurrency=kind.num_concurrent_calls,
            runtime_env={"env_vars": _environment()},
        )
        return _ActorHost(cast("ActorHandle[Any]", remote.remote(settings)))

    def wait(self, calls: Sequence[Call[Any]], *, timeout_seconds: float) -> list[Call[Any]]:
        if not calls:
            time.sleep(timeout_seconds)
            return []
        by_reference = {cast("_ActorCall[Any]", call).reference: call for call in calls}
        references = list(by_reference)
        done, _ = ray.wait(references, num_returns=1, timeout=timeout_seconds)
        if done:
            done, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [by_reference[reference] for reference in done]


@dataclass(frozen=True, slots=True)
class _ActorHost(Generic[HostT_co]):
    """Implements ``cluster.RemoteHost``."""

    handle: ActorHandle[Any]

    def call(
        self,
        method: Callable[Concatenate[HostT_co, ArgumentsT], ReplyT],
        /,
        *arguments: ArgumentsT.args,
        **options: ArgumentsT.kwargs,
    ) -> Call[ReplyT]:
        return _ActorCall(getattr(self.handle, method.__name__).remote(*arguments, **options))

    def kill(self) -> None:
        ray.kill(self.handle)


@dataclass(frozen=True, slots=True)
class _ActorCall(Generic[ReplyT_co]):
    """Implements ``cluster.Call``."""

    reference: ray.ObjectRef[Any]

    def result(self) -> ReplyT_co:
        try:
            reply: ReplyT_co = ray.get(self.reference, timeout=10.0)
            return reply
        except (ActorDiedError, ActorUnavailableError, RayActorError, GetTimeoutError) as error:
            raise ServiceDied(_reason(error)) from error
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None


def _reason(error: Exception) -> str:
    """The line that says it: the last, where Ray reports an exception of a constructor."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "creation task" in lines[0] else lines[0]


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Threads that spin, which is right for one process alone, take the cores of other services.
    return {**passed_on, "GOMP_SPINCOUNT": "0"}


def _num_gpus(config: RunConfig) -> int | None:
    """None: as many as Ray finds."""
    wanted = config.cluster.sampler_gpus or config.cluster.learner_gpus
    return None if wanted else 0
