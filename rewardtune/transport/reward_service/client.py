"""Ask a server for rewards over gRPC: deadlines, and patience with one that is away or full."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import grpc

from protos.v1 import reward_pb2 as pb
from protos.v1 import reward_pb2_grpc as pb_grpc
from rewardtune.records import Score
from rewardtune.transport.reward_service.messages import (
    OPTIONS,
    Description,
    Question,
    RewardRefused,
    RewardServerError,
    RewardUnavailable,
    answer,
    description,
    question_message,
)
from rewardtune.transport.security.config import SecurityConfig
from rewardtune.transport.security.grpc_security import open_channel, tls_trouble, token_metadata

DESCRIBE_SECONDS = 30.0
"""How long a server may take to come up."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.05, 5.0

_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Asking again is right: it is restarting, or full."""
# Without pings nobody would notice that the machine people sit at is gone. Servers hang up on
# clients that ping more often than every 5 minutes, unless told otherwise.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
)

_AnswerT = TypeVar("_AnswerT")


class RewardClient:
    """One server. Safe to use from several threads."""

    def __init__(self, address: str, security: SecurityConfig | None = None) -> None:
        """Connects when it is first asked something.

        Args:
            address: host:port.
            security: of a server at ``grpcs://``; None: in the clear, and without a token.

        Raises:
            ValueError: a file of ``security`` will not do.
        """
        self._url = f"{'grpc' if security is None else 'grpcs'}://{address}"
        self._security = security
        self._metadata = token_metadata(security)
        self._channel = open_channel(address, security, options=[*OPTIONS, *_KEEPALIVE])
        self._stub = pb_grpc.RewardStub(self._channel)

    def describe(self, *, patience_seconds: float = DESCRIBE_SECONDS) -> Description:
        """What it scores.

        Raises:
            RewardUnavailable: nobody answers.
            RewardServerError: it answers with an error.
        """
        return description(
            self._ask(
                lambda seconds: self._stub.Describe(
                    pb.DescribeRequest(), timeout=seconds, metadata=self._metadata
                ),
                patience_seconds=patience_seconds,
            )
        )

    def score(self, question: Question, *, patience_seconds: float | None) -> Score:
        """Its score of one group; shapes and finiteness are for the caller to check.

        Args:
            patience_seconds: for everything, attempts in vain included; None: as long as it
                takes.

        Raises:
            RewardUnavailable: no answer in time.
            RewardRefused: it is not the server that ``describe`` told of.
            RewardServerError: it failed, or its answer cannot be read.
        """
        request = question_message(question)
        response = self._ask(
            lambda seconds: self._stub.Score(request, timeout=seconds, metadata=self._metadata),
            patience_seconds=patience_seconds,
        )
        try:
            return answer(response, ordinal=question.group.ordinal)
        except ValueError as error:
            raise RewardServerError(f"{self._url}: {error}") from error

    def close(self) -> None:
        self._channel.close()

    def _ask(
        self, ask: Callable[[float | None], _AnswerT], *, patience_seconds: float | None
    ) -> _AnswerT:
        give_up = None if patience_seconds is None else time.monotonic() + patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            left = None if give_up is None else max(0.0, give_up - time.monotonic())
            try:
                return ask(left)
            except grpc.RpcError as error:
                code = error.code()
                left = None if give_up is None else give_up - time.monotonic()
                if code is grpc.StatusCode.FAILED_PRECONDITION:
                    raise RewardRefused(f"{self._url} refuses: {error.details()}") from error
                self._check_trust(code, error.details() or "")
                is_late = code is grpc.StatusCode.DEADLINE_EXCEEDED
                if is_late or (code in _PASSING and left is not None and left <= pause):
                    # A server that wants another certificate hangs up without a word.
                    trusts = "" if self._security is None else ", and takes security.certificate"
                    # The same words each time, so that two such failures count as one.
                    raise RewardUnavailable(
                        f"{self._url} gave no answer within {patience_seconds:g} s "
                        f"({code.name}): see whether the server runs and is reachable from here"
                        f"{trusts}"
                    ) from error
                if code not in _PASSING:
                    raise RewardServerError(
                        f"{self._url}: {code.name}: {error.details()}"
                    ) from error
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _check_trust(self, code: grpc.StatusCode, details: str) -> None:
        """Raise at once where the two ends will never trust each other."""
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise RewardServerError(
                f"{self._url} refuses the call ({details}): set security.token_file to the file "
                "of the server's token, and call it by grpcs://"
            )
        if code is grpc.StatusCode.UNAVAILABLE:
            trouble = tls_trouble(details, self._security)
            if trouble is not None:
                raise RewardServerError(f"{self._url}: {trouble}")
