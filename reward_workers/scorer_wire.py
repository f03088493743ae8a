"""Frames and messages between a reward worker and its scorers; see protos/v1/scorer.proto."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from protos.v1 import scorer_pb2 as pb
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.wire import MAX_MESSAGE_BYTES

MAX_TEXT_BYTES = 16 * 1024
"""Of a traceback; of a longer one the end counts."""
MAX_FRAME_BYTES = MAX_MESSAGE_BYTES + 4 * MAX_TEXT_BYTES

_LENGTH = struct.Struct(">I")
_MAX_LINE = 500


class BrokenFrame(ValueError):
    """What came is no message of this protocol."""


@dataclass(frozen=True, slots=True)
class Start:
    spec: bytes
    data_path: str
    deadline_seconds: float
    artefacts_path: str = ""
    """Folder in which files that options name are looked for first; empty: nowhere."""
    security: SecurityConfig = PLAIN
    """Of the run's reward servers."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a scorer is fit for; it takes groups if ``refusal`` is empty."""

    reward_digest: str = ""
    dataset_digest: str = ""
    refusal: str = ""
    is_human: bool = False
    """People score: groups have no deadline."""


@dataclass(frozen=True, slots=True)
class Scored:
    scored: bytes
    """A scored group."""
    load_seconds: float
    score_seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    is_invalid: bool
    message: str
    traceback: str


@dataclass(frozen=True, slots=True)
class Unfit:
    """The scorer is at fault, and not the group."""

    message: str


Reply = Started | Scored | Failed | Unfit


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole frame, if there is one.

        Raises:
            BrokenFrame: the next frame is longer than any message.
        """
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_FRAME_BYTES:
            raise BrokenFrame(f"a frame of {length} bytes: a message may have {MAX_FRAME_BYTES}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame


def start_frame(start: Start) -> bytes:
    message = pb.StartScorer(
        spec=start.spec,
        data_path=start.data_path,
        deadline_seconds=start.deadline_seconds,
        artefacts_path=start.artefacts_path,
        security=start.security.model_dump_json().encode(),
    )
    return _frame(pb.ScorerRequest(start=message))


def group_frame(group: bytes) -> bytes:
    return _frame(pb.ScorerRequest(group=group))


def read_request(frame: bytes) -> Start | bytes:
    """A start, or a group's bytes. Raises BrokenFrame."""
    message = pb.ScorerRequest()
    _parse(frame, message)
    if message.WhichOneof("kind") == "start":
        start = message.start
        return Start(
            start.spec,
            start.data_path,
            start.deadline_seconds,
            start.artefacts_path,
            _security(start.security),
        )
    if message.WhichOneof("kind") == "group":
        return message.group
    raise BrokenFrame("an empty request")


def _security(told: bytes) -> SecurityConfig:
    try:
        return SecurityConfig.model_validate_json(told) if told else PLAIN
    except ValueError as error:
        raise BrokenFrame("a start with a [security] that nobody wrote") from error


def reply_frame(reply: Reply) -> bytes:
    match reply:
        case Started(reward_digest, dataset_digest, refusal, is_human):
            started = pb.ScorerStarted(
                reward_digest=reward_digest,
                dataset_digest=dataset_digest,
                refusal=one_line(refusal),
                is_human=is_human,
            )
            return _frame(pb.ScorerReply(started=started))
        case Scored(scored, load_seconds, score_seconds):
            group = pb.GroupScored(
                scored=scored, load_seconds=load_seconds, score_seconds=score_seconds
            )
            return _frame(pb.ScorerReply(scored=group))
        case Failed(is_invalid, message, traceback):
            failed = pb.GroupFailed(
                is_invalid=is_invalid, message=one_line(message), traceback=tail(traceback)
            )
            return _frame(pb.ScorerReply(failed=failed))
        case Unfit(message):
            return _frame(pb.ScorerReply(unfit=one_line(message)))


def read_reply(frame: bytes) -> Reply:
    """Raises BrokenFrame."""
    message = pb.ScorerReply()
    _parse(frame, message)
    match message.WhichOneof("kind"):
        case "started":
            started = message.started
            return Started(
                started.reward_digest, started.dataset_digest, started.refusal, started.is_human
            )
        case "scored":
            scored = message.scored
            return Scored(scored.scored, scored.load_seconds, scored.score_seconds)
        case "failed":
            failed = message.failed
            return Failed(failed.is_invalid, failed.message, failed.traceback)
        case "unfit":
            return Unfit(message.unfit)
        case _:
            raise BrokenFrame("an empty reply")


def one_line(text: str) -> str:
    """The first line that says something, without what protobuf cannot carry."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    return _sendable(line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 3]}...")


def tail(text: str) -> str:
    """The last ``MAX_TEXT_BYTES``."""
    return _sendable(text).encode()[-MAX_TEXT_BYTES:].decode(errors="ignore")


def _sendable(text: str) -> str:
    # Lone surrogates, as file names with broken encodings have them, do not encode.
    return text.encode(errors="replace").decode()


def _parse(frame: bytes, empty: pb.ScorerRequest | pb.ScorerReply) -> None:
    try:
        empty.ParseFromString(frame)
    except DecodeError as error:
        raise BrokenFrame(f"{len(frame)} bytes that are no message: {error}") from error


def _frame(message: pb.ScorerRequest | pb.ScorerReply) -> bytes:
    data = message.SerializeToString()
    if len(data) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame may have {MAX_FRAME_BYTES} bytes, this one has {len(data)}")
    return _LENGTH.pack(len(data)) + data
