"""A reward worker as a plain process: needs a queue and the data set, and neither torch nor ray."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from reward_workers.config import RewardWorkerConfig
from reward_workers.worker import RewardWorker, WorkerState
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.telemetry.exposition import Exposition, port_range
from rewardtune.transport.telemetry.meter import Telemetry
from rewardtune.transport.telemetry.metric_table import Role

LOOPBACK = "127.0.0.1"


def serve(
    config: RewardWorkerConfig,
    *,
    queue_url: str,
    run: str,
    data_path: Path,
    artefacts_path: Path | None = None,
    security: SecurityConfig = PLAIN,
    metrics_port: int | None = None,
    health_port: int | None = None,
    host: str = LOOPBACK,
) -> int:
    """Work until SIGTERM or SIGINT, and drain then; to be called by the main thread.

    Args:
        queue_url: as ``rewardtune.transport.queue.connect`` reads it.
        data_path: folder of the run's training data.
        artefacts_path: folder in which files that the run's options name are looked for first.
        security: what the queue and reward servers are called with.
        metrics_port: serve Prometheus here, and /healthz; 0: any that is free.
        health_port: serve ``grpc.health.v1`` here: SERVING while the worker is ready.
        host: interface of both.

    Returns:
        The exit code, of ``reward_workers.worker``.

    Raises:
        ValueError: no such kind of queue.
        QueueUnavailable, QueueRefused: as the queue says, at the start or later.
        OSError: a port is taken.
    """
    with contextlib.ExitStack() as at_end:
        shown = _Health()
        telemetry = Telemetry(Role.REWARD_WORKER)
        metrics_address = ""
        if health_port is not None:
            at_end.enter_context(_health_service(shown, host=host, port=health_port))
        if metrics_port is not None:
            exposition = Exposition(
                telemetry.exposition,
                ports=port_range(metrics_port, 1),
                host=host,
                health=lambda: shown.reason,
            )
            metrics_address = at_end.enter_context(exposition).address
        queue = at_end.enter_context(
            contextlib.closing(
                connect_queue(
                    queue_url, run=run, lease_seconds=config.lease_seconds, security=security
                )
            )
        )
        worker = RewardWorker(
            queue,
            config,
            data_path=data_path,
            artefacts_path=artefacts_path,
            security=security,
            name=unique_name(),
            metrics=telemetry,
            metrics_address=metrics_address,
            on_state=shown,
        )
        at_end.enter_context(_draining_on_signals(worker))
        return worker.run()


def unique_name() -> str:
    """Names this process start among all workers."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class _Health:
    """What probes are told: the worker's state."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self(WorkerState.STARTING, "")

    def __call__(self, state: WorkerState, message: str) -> None:
        is_ready = state is WorkerState.READY
        self.reason = "" if is_ready else f"{state.value}: {message}".removesuffix(": ")
        answer = health_pb2.HealthCheckResponse
        self.servicer.set(health.OVERALL_HEALTH, answer.SERVING if is_ready else answer.NOT_SERVING)


@contextlib.contextmanager
def _health_service(shown: _Health, *, host: str, port: int) -> Iterator[None]:
    # Without the option a second server would share the port in silence.
    server = grpc.server(ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(shown.servicer, server)
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise OSError(
            f"the health service cannot listen on {host}:{port}: the port is taken, give another "
            "with --health-port"
        ) from None
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait()


@contextlib.contextmanager
def _draining_on_signals(worker: RewardWorker) -> Iterator[None]:
    def drain(number: int, frame: FrameType | None) -> None:
        worker.drain()

    before = {number: signal.signal(number, drain) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
