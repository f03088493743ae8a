"""The client of Control: what an operator's commands ask of the driver of a live run."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar, cast

import grpc

from protos.v1 import control_pb2 as pb
from protos.v1 import control_pb2_grpc as pb_grpc
from rewardtune.cluster.control.messages import KEY_HEADER, MESSAGE_SIZES, QUEUE_AWAY, plain
from rewardtune.cluster.control.record import NotLive, read_driver_record
from rewardtune.transport.security.config import VARIABLES, SecurityConfig
from rewardtune.transport.security.grpc_security import (
    TOKEN_REFUSED,
    open_channel,
    tls_trouble,
    token_metadata,
)

CALL_SECONDS = 15.0
"""Longer than the driver waits for its queue."""

_OVERRIDE = f"{', '.join(VARIABLES.values())} say where this machine has other files"

_RequestT = TypeVar("_RequestT")
_ResponseT = TypeVar("_ResponseT")


class Refused(ValueError):
    """The driver says no; the message is one line."""


class ControlClient:
    """Talks to one driver. Every method may raise NotLive; none waits longer than 15 s."""

    def __init__(self, address: str, *, key: str, security: SecurityConfig | None = None) -> None:
        """As driver.json has them; connects with the first call.

        Args:
            security: of a Control that speaks TLS; None: in the clear.

        Raises:
            Refused: a file of ``security`` will not do.
        """
        self._address = address
        self._security = security
        try:
            # A proxy is for the world outside.
            self._channel = open_channel(
                address, security, options=[*MESSAGE_SIZES, ("grpc.enable_http_proxy", 0)]
            )
            token = token_metadata(security)
        except ValueError as error:
            raise Refused(f"{error}; {_OVERRIDE}") from error
        self._stub = pb_grpc.ControlStub(self._channel)
        self._metadata = (
            (*token, (KEY_HEADER, key)) if token else (("authorization", f"Bearer {key}"),)
        )

    @classmethod
    def of_run(cls, directory: Path) -> ControlClient:
        """Of the driver that drives the run in this directory.

        How it is called by TLS stands in driver.json too; variables of the environment
        (``rewardtune.transport.security.config.VARIABLES``) go before.

        Raises:
            NotLive: there is none, or it is dead.
            Refused: it speaks TLS, and a file that this needs will not do.
        """
        record = read_driver_record(directory)
        if record.is_dead:
            raise NotLive(
                f"run {directory} is not live: its driver, process {record.pid}, has died; the "
                "command that started it continues it"
            )
        security = None
        if record.security:
            told = SecurityConfig.model_validate(dict(record.security))
            security = told.with_environment(os.environ)
        return cls(record.address, key=record.key, security=security)

    def status(self) -> dict[str, Any]:
        """The driver's own ``status``, as plain JSON values."""
        return plain(self._call(self._stub.Status, pb.StatusRequest()))

    def explain(self, ordinal: int) -> dict[str, Any]:
        """The fields of ``whereabouts.Location``.

        Raises:
            Refused: there is no such ordinal.
        """
        if ordinal < 0:
            raise Refused(f"ordinals count groups from 0, got {ordinal}")
        return plain(self._call(self._stub.Explain, pb.ExplainRequest(ordinal=ordinal)))

    def drain(self, *, for_restart: bool = False) -> None:
        self._call(self._stub.Drain, pb.DrainRequest(for_restart=for_restart))

    def pause(self) -> None:
        self._call(self._stub.Pause, pb.PauseRequest())

    def resume(self) -> None:
        self._call(self._stub.Resume, pb.ResumeRequest())

    def checkpoint(self) -> None:
        self._call(self._stub.Checkpoint, pb.CheckpointRequest())

    def scale_reward_workers(self, count: int) -> int:
        """How many there were to be before.

        Raises:
            Refused: there cannot be so many, or so few.
        """
        request = pb.ScaleRewardWorkersRequest(count=count)
        return self._call(self._stub.ScaleRewardWorkers, request).previous

    def dead_letters(self, *, max_letters: int = 0) -> tuple[list[dict[str, Any]], int]:
        """The newest, by ordinal, as ``control.proto`` describes them; and how many there are."""
        request = pb.DeadLettersRequest(max_letters=max_letters)
        found = self._call(self._stub.DeadLetters, request)
        return [plain(letter) for letter in found.letters], found.total

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self, call: grpc.UnaryUnaryMultiCallable[_RequestT, _ResponseT], request: _RequestT
    ) -> _ResponseT:
        try:
            return call(request, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.RpcError as error:
            self._explain(cast("grpc.Call", error))

    def _explain(self, error: grpc.Call) -> NoReturn:
        code, told = error.code(), " ".join((error.details() or "").split())
        match code:
            case grpc.StatusCode.INVALID_ARGUMENT:
                raise Refused(told)
            case grpc.StatusCode.FAILED_PRECONDITION:
                raise NotLive(told)
            case grpc.StatusCode.UNAUTHENTICATED if told == TOKEN_REFUSED:
                raise Refused(
                    f"the driver at {self._address} refuses the token: it must be that of the "
                    f"run's security.token_file; {_OVERRIDE}"
                )
            case grpc.StatusCode.UNAUTHENTICATED:
                raise NotLive(
                    f"the driver at {self._address} is another one by now: its run has ended or "
                    "was started again; try again"
                )
            case grpc.StatusCode.UNAVAILABLE if told.startswith(QUEUE_AWAY):
                raise NotLive(told)
            case grpc.StatusCode.UNAVAILABLE if trouble := tls_trouble(told, self._security):
                raise Refused(f"the driver at {self._address}: {trouble}; {_OVERRIDE}")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                # One that wants another certificate hangs up without a word.
                trusts = "" if self._security is None else ", or takes another certificate"
                raise NotLive(
                    f"no driver answers at {self._address} ({code.name}): the run has ended, or "
                    f"the driver's machine cannot be reached from here{trusts}"
                )
            case _:
                raise NotLive(f"the driver at {self._address} failed to answer: {told}")
