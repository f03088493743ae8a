"""What is said over ``Reward`` (protos/v1/reward.proto), as values: the edge to protobuf.

Clients and servers of this project are beside it; others are written against the .proto.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from protos.v1 import group_pb2
from protos.v1 import reward_pb2 as pb
from rewardtune.datasets.frame import Framing, Square
from rewardtune.records import Group, Score
from rewardtune.transport.wire import (
    MAX_MESSAGE_BYTES,
    group_from_bytes,
    group_to_bytes,
    score_from_bytes,
    score_to_bytes,
)

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)


class RewardUnavailable(ConnectionError):
    """The server could not be reached, was full, or did not answer in time."""


class RewardRefused(RuntimeError):
    """The server has another data set or another reward than the run asks for."""


class RewardServerError(RuntimeError):
    """The server failed to score a group, or answered with nonsense."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a server scores, and how; the fields of ``DescribeResponse``."""

    task: str
    reward_digest: str
    dataset_digest: str
    components: tuple[str, ...] = ()
    max_concurrency: int = 0
    is_human: bool = False
    """People score: no deadline, and not the same twice."""


@dataclass(frozen=True, slots=True)
class Question:
    """One group to score; the fields of ``ScoreRequest``."""

    group: Group
    framing: Framing
    dataset_digest: str
    reward_digest: str
    vocabulary: Mapping[str, Any]
    task_options: Mapping[str, Any]


def description_message(description: Description) -> pb.DescribeResponse:
    return pb.DescribeResponse(
        task=description.task,
        reward_digest=description.reward_digest,
        dataset_digest=description.dataset_digest,
        components=description.components,
        max_concurrency=description.max_concurrency,
        latency_class=pb.LATENCY_CLASS_HUMAN if description.is_human else pb.LATENCY_CLASS_MACHINE,
    )


def description(message: pb.DescribeResponse) -> Description:
    return Description(
        task=message.task,
        reward_digest=message.reward_digest,
        dataset_digest=message.dataset_digest,
        components=tuple(message.components),
        max_concurrency=message.max_concurrency,
        is_human=message.latency_class == pb.LATENCY_CLASS_HUMAN,
    )


def question_message(question: Question) -> pb.ScoreRequest:
    """Raises ValueError for a group that cannot be sent."""
    return pb.ScoreRequest(
        group=group_pb2.Group.FromString(group_to_bytes(question.group)),
        input_size=question.framing.side,
        dataset_digest=question.dataset_digest,
        reward_digest=question.reward_digest,
        vocabulary=json.dumps(question.vocabulary, sort_keys=True),
        task_options=json.dumps(question.task_options, sort_keys=True),
    )


def question(message: pb.ScoreRequest) -> Question:
    """Raises ValueError where the message is not a question."""
    return Question(
        group=group_from_bytes(message.group.SerializeToString()),
        framing=_framing(message.input_size),
        dataset_digest=message.dataset_digest,
        reward_digest=message.reward_digest,
        vocabulary=_table(message.vocabulary, "vocabulary"),
        task_options=_table(message.task_options, "task_options"),
    )


def answer_message(ordinal: int, score: Score) -> pb.ScoreResponse:
    """Raises ValueError for a score that cannot be sent."""
    return pb.ScoreResponse(
        ordinal=ordinal, score=group_pb2.Score.FromString(score_to_bytes(score))
    )


def answer(message: pb.ScoreResponse, *, ordinal: int) -> Score:
    """Raises ValueError where the message is no answer about that group."""
    if message.ordinal != ordinal:
        raise ValueError(f"it answered about group {message.ordinal}, asked about {ordinal}")
    try:
        return score_from_bytes(message.score.SerializeToString())
    except DecodeError as error:  # a field that is there and is not one
        raise ValueError(str(error)) from error


def _framing(side: int) -> Framing:
    if side < 1:
        raise ValueError(f"input_size is {side}: it must be the side of a square in pixels")
    return Square(side=side)


def _table(text: str, name: str) -> dict[str, Any]:
    try:
        table = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a JSON object, got {type(table).__name__}")
    return table
