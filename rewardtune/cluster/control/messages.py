"""What Control's messages say, as plain values: the edge behind which nothing sees a protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from protos.v1 import control_pb2 as pb
from rewardtune.transport.queue.job_queue import DeadLetter
from rewardtune.transport.wire import MAX_MESSAGE_BYTES, group_from_bytes

QUEUE_AWAY = "the queue is away"
"""How the server begins to tell so; the client knows it by these words."""
KEY_HEADER = "x-rewardtune-key"
"""Brings the key of driver.json where "authorization" brings the run's token."""
MESSAGE_SIZES = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
"""Options of either end."""
MAX_LINE, MAX_TRACEBACK = 1_000, 4_000
"""Characters of a failure; of more than so many failures the last are told."""
MAX_FAILURES = 5


def status_message(status: Mapping[str, Any]) -> pb.StatusResponse:
    """``Driver.status``, as far as the wire contract goes."""
    values = {**status, "state": f"RUN_STATE_{status['state'].upper()}"}
    values["services"] = [
        {**service, "state": f"SERVICE_STATE_{service['state'].upper()}"}
        for service in status["services"]
    ]
    return pb.StatusResponse(**_declared(values, pb.StatusResponse.DESCRIPTOR))


def _declared(values: Mapping[str, Any], descriptor: Any) -> dict[str, Any]:
    """Without the keys that the message does not have, at any depth."""
    found = {}
    for field in descriptor.fields:
        value = values.get(field.name)
        if value is None:
            continue
        if _is_message(field):
            inner = field.message_type
            many = [_declared(each, inner) for each in (value if field.is_repeated else [value])]
            value = many if field.is_repeated else many[0]
        found[field.name] = value
    return found


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON values under its fields' names; None where an optional one is absent.

    An enum's value is a word: RUN_STATE_RUNNING is "running".
    """
    fields: Any = message.DESCRIPTOR.fields
    return {field.name: _plain_field(message, field) for field in fields}


def _plain_field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.has_presence and not message.HasField(field.name):
        return None
    if _is_message(field):
        return [plain(each) for each in value] if field.is_repeated else plain(value)
    if field.message_type is not None:
        return dict(value)
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        prefix = names[0].name.removesuffix("UNSPECIFIED")
        return names[value].name.removeprefix(prefix).lower() if value in names else str(value)
    return list(value) if field.is_repeated else value


def _is_message(field: Any) -> bool:
    return field.message_type is not None and not field.message_type.GetOptions().map_entry


def newest_letters(letters: Sequence[DeadLetter], *, at_most: int) -> list[pb.DeadLetter]:
    """The last so many, or as many as fit into a message."""
    found: list[pb.DeadLetter] = []
    num_bytes = 0
    for letter in reversed(letters[-at_most:]):
        message = _letter_message(letter)
        num_bytes += message.ByteSize()
        if num_bytes > MAX_MESSAGE_BYTES // 2:
            break
        found.append(message)
    return found[::-1]


def _letter_message(letter: DeadLetter) -> pb.DeadLetter:
    """Without the body, and with no text longer than a person reads."""
    try:
        example: int | None = group_from_bytes(letter.body).example
    except ValueError:
        example = None
    return pb.DeadLetter(
        term=letter.term,
        ordinal=letter.ordinal,
        example=example,
        failures=[
            pb.ScoringFailure(
                kind=failure.kind.value,
                message=_text(failure.message[:MAX_LINE]),
                traceback=_text(failure.traceback[-MAX_TRACEBACK:]),
            )
            for failure in letter.failures[-MAX_FAILURES:]
        ],
        worker=letter.worker,
        reward_digest=letter.reward_digest,
    )


def _text(text: str) -> str:
    # A message may quote a file name that is not Unicode.
    return text.encode(errors="backslashreplace").decode()
