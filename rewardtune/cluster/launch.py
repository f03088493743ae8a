"""A tuning run on Ray: starts or joins a cluster, puts the services on it, drives them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    RayActorError,
    RayTaskError,
)

from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.spec import make_spec
from rewardtune.cluster.control.service import ControlServer
from rewardtune.cluster.driver.cluster import Call, Service, ServiceDied
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.driver.fleet import Placement
from rewardtune.cluster.hosts.exposed import expose
from rewardtune.cluster.hosts.settings import ServiceSettings
from rewardtune.cluster.job_bundle import write_code
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.run.assembly import Parts, assemble, build_reward
from rewardtune.run.directory import check_run
from rewardtune.run.log import RunLog
from rewardtune.run.result import RunResult
from rewardtune.run.stopping import stop_on_signal
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits
from rewardtune.transport.queue.ray_queue import start_ray_queue
from rewardtune.transport.telemetry.exposition import Target
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.weights.ray_weights import start_ray_weights

_OBJECT_STORE_BYTES = 500_000_000
"""Of a Ray that is started for the run: a few versions of a small policy."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray 2.60 would write a token into the home folder, which later starts then insist on.
    "RAY_AUTH_MODE": "disabled",
    # The only switch that keeps a node on the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_PASSED_ON = ("OMP_WAIT_POLICY", "PYTHONPATH", "HF_HUB_OFFLINE", "REWARDTUNE_CODE")


def tune_on_ray(
    config: RunConfig,
    log: RunLog,
    *,
    fork: bool = False,
    on_driver: Callable[[Driver], None] = lambda driver: None,
) -> RunResult:
    """As ``local.tune``, with every part in a process of its own.

    Args:
        on_driver: given the driver before it runs: for whoever watches or steers it.

    Raises:
        ConfigError, ValueError, CheckpointError, OSError: one line that says what to fix. Of a
            run directory that cannot be gone on with: before anything is started.
        RunFailed: a service cannot be kept alive.
    """
    # The driver computes nothing: it may stand on a node without the GPU that others have.
    parts = assemble(config, on_cpu=True)
    check_run(parts.config, fork=fork)
    with (
        _ray(parts.config),
        stop_on_signal() as stop,
        _driver(parts, log, RayCluster(), fork=fork) as driver,
        ControlServer(
            driver,
            directory=parts.config.operations.directory,
            host=parts.config.cluster.bind,
        ),
    ):
        on_driver(driver)
        return driver.run(lambda: bool(stop))


@contextlib.contextmanager
def _driver(parts: Parts, log: RunLog, cluster: RayCluster, *, fork: bool) -> Iterator[Driver]:
    config = parts.config
    settings = config.cluster
    namespace = f"rewardtune-{config.run_name}"
    limits = QueueLimits(lease_seconds=settings.lease_seconds)
    if settings.queue is None:
        queue_url = f"ray://{namespace}/queue"
        queue: JobQueue = start_ray_queue("queue", namespace, limits)
    else:
        queue_url = settings.queue
        queue = connect_queue(queue_url, run=config.run_name, lease_seconds=settings.lease_seconds)
    weights = start_ray_weights("weights", namespace)
    spec = make_spec(
        parts.resolved,
        parts.task,
        parts.train,
        run=config.run_name,
        identity_hash=config.identity_hash(),
        input_size=parts.policy.input_size,
        scorer=ScorerSettings(threads=config.reward_workers.threads),
        reward=build_reward(parts),
    )
    write_code(config.operations.directory / "code", config)
    shared = ServiceSettings(
        config=config,
        queue=queue_url,
        weights=f"ray://{namespace}/weights",
        spec=spec.to_bytes().decode(),
        fork=fork,
    )
    # Services come and go: whoever asks for targets hears of those there are at that moment.
    drivers: list[Driver] = []
    exposed = expose(
        config,
        Role.DRIVER,
        targets=lambda: [
            Target(exposed.address, "driver", config.run_name),
            *(target for driver in drivers for target in driver.targets()),
        ],
    )
    driver = Driver(
        config,
        log,
        cluster=cluster,
        queue=queue,
        placement=Placement(
            settings=shared.model_dump_json(),
            num_learners=settings.learners,
            num_samplers=settings.num_samplers,
            num_reward_workers=settings.num_reward_workers,
            num_cpus=_num_cpus(config),
            num_gpus={
                "learner": settings.learner_gpus,
                "learner_rank": settings.learner_gpus,
                "sampler": settings.sampler_gpus,
            },
        ),
        meter=exposed.meter,
    )
    drivers.append(driver)
    with exposed.exposition:
        log.message(f"metrics of every process: http://{exposed.address}/sd")
        try:
            yield driver
        finally:
            queue.close()
            # At once, so that the next run of this name finds the names free.
            for name in ("queue", "weights"):
                _end_actor(name, namespace)
    del weights  # its registry lives as long as this reference


def _end_actor(name: str, namespace: str) -> None:
    with contextlib.suppress(ValueError):  # Redis holds the queue, or it is gone
        ray.kill(ray.get_actor(name, namespace))


@dataclass(frozen=True, slots=True)
class _Actor:
    name: str
    handle: ActorHandle[Any]


class RayCluster:
    """Implements ``cluster.Cluster``: every service is an actor."""

    def start(
        self, name: str, build: type[Any], settings: str, *, num_cpus: int, num_gpus: float
    ) -> Service:
        # Two calls at a time: a reward worker runs until it is told to drain.
        concurrency = 2 if hasattr(build, "drain") else 1
        remote = ray.remote(build).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_restarts=0,
            max_concurrency=concurrency,
            runtime_env={"env_vars": _environment()},
        )
        return _Actor(name, cast("ActorHandle[Any]", remote.remote(settings)))

    def call(self, service: Service, method: str, *arguments: Any) -> Call:
        actor = cast("_Actor", service)
        return cast("Call", getattr(actor.handle, method).remote(*arguments))

    def wait(self, calls: Sequence[Call], *, timeout_seconds: float) -> list[Call]:
        if not calls:
            time.sleep(timeout_seconds)
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_seconds)
        if done:
            done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return cast("list[Call]", done)

    def result(self, call: Call) -> Any:
        try:
            return ray.get(cast("Any", call), timeout=10.0)
        except (ActorDiedError, ActorUnavailableError, RayActorError, GetTimeoutError) as error:
            raise ServiceDied(_reason(error)) from error
        except RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, Exception) else error from None

    def kill(self, service: Service) -> None:
        ray.kill(cast("_Actor", service).handle)


def _reason(error: Exception) -> str:
    """The line that says it: the last, where Ray reports an exception of a constructor."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "creation task" in lines[0] else lines[0]


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Threads that spin, which is right for one process alone, take the cores of other services.
    return {**passed_on, "GOMP_SPINCOUNT": "0"}


@contextlib.contextmanager
def _ray(config: RunConfig) -> Iterator[None]:
    """A Ray to work on: the caller's, the one at the configured address, or one of our own."""
    if ray.is_initialized():
        yield
        return
    namespace, address = f"rewardtune-{config.run_name}", config.cluster.address
    # For an address, too: the mode must not hang on a file in somebody's home folder.
    os.environ.setdefault("RAY_AUTH_MODE", _QUIET["RAY_AUTH_MODE"])
    if address is not None:
        try:
            ray.init(address, namespace=namespace, log_to_driver=False)
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


def _num_cpus(config: RunConfig) -> dict[str, int]:
    """On a cluster its autoscaler goes by them. Here all services share the cores there are."""
    if config.cluster.address is None:
        return {}
    workers = config.reward_workers
    return {
        "learner": config.compute.threads,
        "learner_rank": config.compute.threads,
        "sampler": config.compute.threads,
        "evaluator": config.compute.threads,
        "reward_worker": workers.num_scorers * workers.threads,
    }


def _num_gpus(config: RunConfig) -> int | None:
    """None: as many as Ray finds."""
    wanted = config.cluster.sampler_gpus or config.cluster.learner_gpus
    return None if wanted else 0
