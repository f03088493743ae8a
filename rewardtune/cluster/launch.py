"""A tuning run on Ray: puts the parts of a run together, and drives them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.spec import ScoringSpec, make_spec
from rewardtune.cluster.control.server import ControlServer
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.driver.fleet import Placement
from rewardtune.cluster.farewell import DriverPage, driver_page
from rewardtune.cluster.hosts.settings import HostSettings
from rewardtune.cluster.job_bundle import write_code
from rewardtune.cluster.ray_cluster import DrainNotice, RayCluster, end_actor, ray_session
from rewardtune.config.run_config import RunConfig
from rewardtune.run.assembly import Parts, assemble, build_reward
from rewardtune.run.directory import check_run
from rewardtune.run.log import RunLog
from rewardtune.run.result import RunResult
from rewardtune.run.run_seal import run_seal
from rewardtune.run.run_state import RunStateFile, run_state
from rewardtune.run.stopping import stop_on_signal
from rewardtune.transport.queue.address import find_url, refuse_password
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import JobQueue, QueueLimits
from rewardtune.transport.queue.ray_queue import start_ray_queue
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.weights.ray_weights import start_ray_weights
from rewardtune.transport.weights.weight_store import WeightStore


def tune_on_ray(
    config: RunConfig,
    log: RunLog,
    *,
    fork: bool = False,
    is_job: bool = False,
    on_driver: Callable[[Driver], None] = lambda driver: None,
) -> RunResult:
    """As ``local.tune``, with every part in a process of its own.

    Args:
        is_job: nobody watches: a refusal is shown until Prometheus has seen it, for 45 s at most.
        on_driver: given the driver before it runs: for whoever watches or steers it.

    Raises:
        ConfigError, ValueError, CheckpointError, OSError: one line that says what to fix. Of a
            run directory that cannot be gone on with: before anything is started.
        RunFailed: a service cannot be kept alive, or Ray drains the driver's node.
        NotFinite: as ``local.tune``.
    """
    directory, num_steps = config.operations.directory, config.learner.num_steps
    with (
        run_state(directory, num_steps=num_steps) as told,
        driver_page(config.cluster, told, run=config.run_name, is_job=is_job) as page,
    ):
        refuse_password(config.cluster.queue, key="cluster.queue")
        # Processes of the run have folders of their own.
        config = config.model_copy(update={"security": config.security.absolute()})
        # The driver computes nothing: it may stand on a node without the GPU that others have.
        parts = assemble(config, on_cpu=True)
        check_run(parts.config, fork=fork)
        with (
            ray_session(parts.config),
            stop_on_signal() as stop,
            _driver(parts, log, RayCluster(), fork=fork, page=page, told=told) as driver,
            ControlServer(
                driver, directory=directory, host=config.cluster.bind, security=config.security
            ),
        ):
            on_driver(driver)
            goes_away = DrainNotice()

            def should_stop() -> bool:
                if goes_away:
                    driver.drain(for_restart=True)
                return bool(stop)

            return driver.run(should_stop)


@contextlib.contextmanager
def _driver(
    parts: Parts,
    log: RunLog,
    cluster: RayCluster,
    *,
    fork: bool,
    page: DriverPage,
    told: RunStateFile,
) -> Iterator[Driver]:
    config = parts.config
    with _stores(config) as stores:
        spec = _spec(parts)
        seal = run_seal(config.operations.directory)
        write_code(config.operations.directory / "code", config)
        settings = HostSettings(
            config=config,
            queue=stores.queue_address,
            queue_url=_read_url(stores.queue_address),
            weights=stores.weights_url,
            spec=spec.to_bytes().decode(),
            run_id=seal.run_id,
            secret=seal.secret.hex(),
            fork=fork,
        )
        driver = Driver(
            config,
            log,
            cluster=cluster,
            queue=stores.queue,
            placement=_placement(config, settings),
            meter=page.meter,
            told=told,
        )
        # Services come and go: whoever asks for targets hears of those there are at that moment.
        page.services = driver.targets
        log.message(f"metrics of every process: http://{page.exposition.address}/sd")
        yield driver


@dataclass(frozen=True, slots=True)
class _Stores:
    """What moves groups and weights between the services."""

    queue: JobQueue
    """The driver's own connection."""
    queue_address: str
    weights: WeightStore
    """Held, though the driver reads none: the store lives as long as this."""
    weights_url: str


@contextlib.contextmanager
def _stores(config: RunConfig) -> Iterator[_Stores]:
    """Start both, or connect; end both at once, so that the next run finds the names free."""
    settings = config.cluster
    namespace = f"rewardtune-{config.run_name}"
    limits = QueueLimits(lease_seconds=settings.lease_seconds)
    if settings.queue is None:
        address = f"ray://{namespace}/queue"
        queue: JobQueue = start_ray_queue("queue", namespace, limits)
    else:
        address = settings.queue
        queue = connect_queue(
            address,
            run=config.run_name,
            lease_seconds=settings.lease_seconds,
            security=config.security,
        )
    weights = start_ray_weights("weights", namespace)
    try:
        yield _Stores(queue, address, weights, f"ray://{namespace}/weights")
    finally:
        queue.close()
        end_actor("queue", namespace)
        end_actor("weights", namespace)


def _read_url(address: str) -> str:
    """Where the address only says where to look: what stands there, for services that cannot."""
    url = find_url(address)
    return "" if url == address else url


def _spec(parts: Parts) -> ScoringSpec:
    """What reward workers must know."""
    config = parts.config
    return make_spec(
        parts.resolved,
        parts.task,
        parts.train,
        run=config.run_name,
        identity_hash=config.identity_hash(),
        framing=parts.policy.framing,
        scorer=ScorerSettings(threads=config.reward_workers.threads),
        reward=build_reward(parts),
    )


def _placement(config: RunConfig, told: HostSettings) -> Placement:
    settings = config.cluster
    return Placement(
        settings=told.model_copy(update={"secret": ""}).model_dump_json(),
        secret_settings=told.model_dump_json(),
        num_learners=settings.learners,
        num_samplers=settings.num_samplers,
        num_reward_workers=settings.num_reward_workers,
        num_cpus=_num_cpus(config),
        num_gpus={
            Role.LEARNER: settings.learner_gpus,
            Role.LEARNER_RANK: settings.learner_gpus,
            Role.SAMPLER: settings.sampler_gpus,
        },
    )


def _num_cpus(config: RunConfig) -> dict[Role, int]:
    """On a cluster its autoscaler goes by them. Here all services share the cores there are."""
    if config.cluster.address is None:
        return {}
    workers = config.reward_workers
    return {
        Role.LEARNER: config.compute.threads,
        Role.LEARNER_RANK: config.compute.threads,
        Role.SAMPLER: config.compute.threads,
        Role.EVALUATOR: config.compute.threads,
        Role.REWARD_WORKER: workers.num_scorers * workers.threads,
    }
