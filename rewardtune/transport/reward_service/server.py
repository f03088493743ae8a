"""Serve rewards over gRPC: what ``Reward`` of protos/v1 asks of any server, for one in Python."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import NoReturn, Protocol

import grpc

from protos.v1 import reward_pb2 as pb
from protos.v1 import reward_pb2_grpc as pb_grpc
from rewardtune.records import Score
from rewardtune.transport.reward_service.messages import (
    OPTIONS,
    Description,
    Question,
    RewardRefused,
    RewardUnavailable,
    answer_message,
    description_message,
    question,
)
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.security.grpc_security import add_port, token_check

LOOPBACK = "127.0.0.1"


class Rewards(Protocol):
    """Who answers. Called from several threads."""

    def describe(self) -> Description: ...

    def score(self, question: Question) -> Score:
        """
        Raises:
            RewardRefused: the question is for another data set, or another reward.
            ValueError: it cannot be read.
        """
        ...


class RewardServer:
    """Serves from its construction until ``close``, in threads of its own."""

    def __init__(
        self,
        rewards: Rewards,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        max_concurrency: int = 4,
        security: SecurityConfig = PLAIN,
    ) -> None:
        """
        Args:
            port: 0: any that is free.
            max_concurrency: groups at once; others are told that the server is full, and ask
                again.
            security: with a certificate it speaks TLS alone; with a token it asks for that.

        Raises:
            ValueError: a file of ``security`` will not do.
            OSError: the port is taken, or ``host`` is no address of this machine.
        """
        self._server = grpc.server(
            # Two more: to describe, and to turn others away, while all the rest score.
            ThreadPoolExecutor(max_workers=max_concurrency + 2, thread_name_prefix="reward"),
            # Without the option a second server would share the port in silence.
            options=[*OPTIONS, ("grpc.so_reuseport", 0)],
            interceptors=token_check(security),
        )
        servicer = _Servicer(rewards, max_concurrency=max_concurrency)
        pb_grpc.add_RewardServicer_to_server(servicer, self._server)
        try:
            self.port = add_port(self._server, f"{host}:{port}", security)
        except RuntimeError:
            raise OSError(
                f"the reward server cannot listen on {host}:{port}: the port is taken or the host "
                "is not an address of this machine"
            ) from None
        self.address = f"{host}:{self.port}"
        self.url = f"{'grpc' if security.certificate is None else 'grpcs'}://{self.address}"
        self._server.start()

    def wait(self) -> None:
        """Until it is closed."""
        self._server.wait_for_termination()

    def close(self) -> None:
        """At once; whoever waits for an answer asks again elsewhere or later."""
        self._server.stop(grace=None).wait()

    def __enter__(self) -> RewardServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Servicer(pb_grpc.RewardServicer):
    def __init__(self, rewards: Rewards, *, max_concurrency: int) -> None:
        self._rewards = rewards
        self._room = threading.BoundedSemaphore(max_concurrency)
        self._max_concurrency = max_concurrency

    def Describe(
        self, request: pb.DescribeRequest, context: grpc.ServicerContext
    ) -> pb.DescribeResponse:
        return description_message(self._rewards.describe())

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        try:
            asked = question(request)
        except ValueError as error:
            _abort(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        if not self._room.acquire(blocking=False):
            full = RewardUnavailable(f"{self._max_concurrency} groups are being scored")
            _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, full)
        try:
            return answer_message(asked.group.ordinal, self._rewards.score(asked))
        except RewardRefused as error:
            _abort(context, grpc.StatusCode.FAILED_PRECONDITION, error)
        except Exception as error:  # whatever reward code raises
            _abort(context, grpc.StatusCode.INTERNAL, error)
        finally:
            self._room.release()


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, error: Exception) -> NoReturn:
    is_plain = isinstance(error, (RewardRefused, RewardUnavailable))
    text = str(error) if is_plain else f"{type(error).__name__}: {error}"
    context.abort(code, " ".join(text.split())[:1000])
    raise AssertionError("abort raises")
