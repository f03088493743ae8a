"""The server of Control: how an operator talks to the driver of a live run, over gRPC.

The driver's process serves it for as long as the run is live. RUN/driver.json says where, and
holds the key that every call must bring: a fresh one for each start, in a file that only the run's
owner can read. So nobody else can stop a run, and a call that was meant for another run, whose
driver is gone and whose port is taken, does nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import grpc

from protos.v1 import control_pb2 as pb
from protos.v1 import control_pb2_grpc as pb_grpc
from rewardtune.cluster.control.messages import (
    KEY_HEADER,
    MESSAGE_SIZES,
    QUEUE_AWAY,
    newest_letters,
    status_message,
)
from rewardtune.cluster.control.record import (
    DRIVER_NAME,
    DriverRecord,
    NotLive,
    read_driver_record,
    write_driver_record,
)
from rewardtune.cluster.driver.whereabouts import Location
from rewardtune.transport.queue.job_queue import DeadLetter, QueueUnavailable
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.security.grpc_security import MetadataCheck, add_port, token_check
from rewardtune.transport.term import StaleTerm

MAX_LETTERS = 100
_EVERYWHERE = ("0.0.0.0", "::")

_ResponseT = TypeVar("_ResponseT")


class Steered(Protocol):
    """What Control needs of a driver; every method may be called from any thread."""

    def status(self) -> dict[str, Any]: ...

    def explain(self, ordinal: int) -> Location: ...

    def drain(self, *, for_restart: bool = False) -> None: ...

    def pause(self, *, is_paused: bool) -> None: ...

    def checkpoint(self) -> None: ...

    def scale_reward_workers(self, count: int) -> int: ...

    def dead_letters(self) -> Sequence[DeadLetter]: ...


class ControlServer:
    """Serves Control from its construction until ``close``, in threads of its own."""

    def __init__(
        self, driver: Steered, *, directory: Path, host: str, security: SecurityConfig = PLAIN
    ) -> None:
        """
        Args:
            directory: the run's; made if missing.
            host: interface to listen on, at any port that is free.
            security: with a certificate it speaks TLS alone; with a token it asks for that too.

        Raises:
            ValueError: a file of ``security`` will not do.
            OSError: ``host`` is not an address of this machine, or the directory is read-only.
        """
        self._driver = driver
        self._directory = directory
        key = secrets.token_hex(16)
        # Without the option a second server could share the port in silence.
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=4, thread_name_prefix="control"),
            interceptors=_checks(key, security),
            options=[*MESSAGE_SIZES, ("grpc.so_reuseport", 0)],
        )
        pb_grpc.add_ControlServicer_to_server(_Servicer(driver), self._server)
        try:
            port = add_port(self._server, _joined(host, 0), security)
        except RuntimeError as error:
            raise OSError(
                f"Control cannot listen on {host}: set cluster.bind to an address of this machine"
            ) from error
        self.record = DriverRecord(
            address=_joined(_reachable(host), port),
            key=key,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=time.time(),
            security=_shown(security),
        )
        # Of a start that may be live; this one may yet turn out to be a mistake.
        self._earlier = _found_record(directory)
        self._server.start()
        try:
            write_driver_record(directory, self.record)
        except OSError:
            self._server.stop(grace=None).wait()
            raise

    def close(self) -> None:
        """Answer the calls that are there, then stop; driver.json goes unless it is another's."""
        if _found_record(self._directory) == self.record:
            with contextlib.suppress(OSError):
                (self._directory / DRIVER_NAME).unlink()
                if self._earlier is not None and self._driver.status()["term"] < 0:
                    write_driver_record(self._directory, self._earlier)
        self._server.stop(grace=1.0).wait()

    def __enter__(self) -> ControlServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _checks(key: str, security: SecurityConfig) -> list[grpc.ServerInterceptor]:
    """The key says which start of the run is meant; the token, where there is one, who asks."""
    refusal = f"give the key that stands in {DRIVER_NAME}"
    if of_token := token_check(security):
        return [*of_token, MetadataCheck({KEY_HEADER: key}, refusal=refusal)]
    return [MetadataCheck({"authorization": f"Bearer {key}"}, refusal=refusal)]


class _Servicer(pb_grpc.ControlServicer):
    def __init__(self, driver: Steered) -> None:
        self._driver = driver

    def Status(self, request: pb.StatusRequest, context: grpc.ServicerContext) -> pb.StatusResponse:
        return status_message(self._driver.status())

    def Explain(
        self, request: pb.ExplainRequest, context: grpc.ServicerContext
    ) -> pb.ExplainResponse:
        found = _answer(context, lambda: self._driver.explain(request.ordinal))
        values = {**asdict(found), "whereabouts": f"WHEREABOUTS_{found.whereabouts.upper()}"}
        return pb.ExplainResponse(**values)

    def Drain(self, request: pb.DrainRequest, context: grpc.ServicerContext) -> pb.DrainResponse:
        self._driver.drain(for_restart=request.for_restart)
        return pb.DrainResponse()

    def Pause(self, request: pb.PauseRequest, context: grpc.ServicerContext) -> pb.PauseResponse:
        self._driver.pause(is_paused=True)
        return pb.PauseResponse()

    def Resume(self, request: pb.ResumeRequest, context: grpc.ServicerContext) -> pb.ResumeResponse:
        self._driver.pause(is_paused=False)
        return pb.ResumeResponse()

    def Checkpoint(
        self, request: pb.CheckpointRequest, context: grpc.ServicerContext
    ) -> pb.CheckpointResponse:
        self._driver.checkpoint()
        return pb.CheckpointResponse()

    def ScaleRewardWorkers(
        self, request: pb.ScaleRewardWorkersRequest, context: grpc.ServicerContext
    ) -> pb.ScaleRewardWorkersResponse:
        previous = _answer(context, lambda: self._driver.scale_reward_workers(request.count))
        return pb.ScaleRewardWorkersResponse(previous=previous)

    def DeadLetters(
        self, request: pb.DeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.DeadLettersResponse:
        letters = _answer(context, self._driver.dead_letters)
        num = min(request.max_letters or MAX_LETTERS, MAX_LETTERS)
        return pb.DeadLettersResponse(
            letters=newest_letters(letters, at_most=num), total=len(letters)
        )


def _answer(context: grpc.ServicerContext, ask: Callable[[], _ResponseT]) -> _ResponseT:
    try:
        return ask()
    except ValueError as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except QueueUnavailable as error:
        context.abort(grpc.StatusCode.UNAVAILABLE, f"{QUEUE_AWAY}: {error}")
    except StaleTerm as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))


def _shown(security: SecurityConfig) -> dict[str, str]:
    if security.certificate is None:
        return {}
    values = security.absolute().model_dump(mode="json", exclude={"verify_clients"})
    return {name: value for name, value in values.items() if value is not None}


def _found_record(directory: Path) -> DriverRecord | None:
    try:
        return read_driver_record(directory)
    except NotLive:
        return None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(host: str) -> str:
    return socket.gethostbyname(socket.gethostname()) if host in _EVERYWHERE else host
