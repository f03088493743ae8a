"""Records to protobuf bytes and back: the edge behind which nothing sees a protobuf.

Axes: S rollouts of the group, T tokens of a sequence, Q probed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from protos.v1 import group_pb2 as pb
from rewardtune.records import Group, Published, Score, ScoredGroup, View, Window

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Of any one message. A usual group has 2 to 10 kB; gRPC's own default limit is the same."""

_MessageT = TypeVar("_MessageT", bound=Message)

_INT32 = (pb.DTYPE_INT32, np.dtype("<i4"))
_FLOAT32 = (pb.DTYPE_FLOAT32, np.dtype("<f4"))
_FLOAT64 = (pb.DTYPE_FLOAT64, np.dtype("<f8"))


def group_to_bytes(group: Group) -> bytes:
    """The same bytes for the same group, on every machine.

    Raises:
        ValueError: an array has another type or shape than records say, a number is negative
            or the whole is over ``MAX_MESSAGE_BYTES``.
    """
    return _to_bytes(_group_message(group), what=f"group {group.ordinal}")


def group_from_bytes(data: bytes) -> Group:
    """Raises ValueError where ``data`` is not a whole group, or too large to be one."""
    return _group(_parsed(data, pb.Group()))


def score_to_bytes(score: Score) -> bytes:
    """As ``group_to_bytes``."""
    return _to_bytes(_score_message(score), what="score")


def score_from_bytes(data: bytes) -> Score:
    """Raises ValueError where ``data`` is not a whole score, or too large to be one."""
    return _score(_parsed(data, pb.Score()))


def scored_group_to_bytes(scored: ScoredGroup) -> bytes:
    """As ``group_to_bytes``; group and score must speak of as many rollouts."""
    _check_joined(scored.group, scored.score)
    message = pb.ScoredGroup(group=_group_message(scored.group), score=_score_message(scored.score))
    return _to_bytes(message, what=f"scored group {scored.group.ordinal}")


def scored_group_from_bytes(data: bytes) -> ScoredGroup:
    """Raises ValueError where ``data`` is not a whole scored group, or too large to be one."""
    return scored_group_with_body(data)[0]


def scored_group_with_body(data: bytes) -> tuple[ScoredGroup, bytes]:
    """As ``scored_group_from_bytes``, and the bytes of its group as ``group_to_bytes`` has them."""
    message = _parsed(data, pb.ScoredGroup())
    _require(message, "group", "score")
    group, score = _group(message.group), _score(message.score)
    _check_joined(group, score)
    return ScoredGroup(group=group, score=score), message.group.SerializeToString(
        deterministic=True
    )


def _group_message(group: Group) -> pb.Group:
    _check_group(group)
    num_tokens, num_live = group.tokens_ST.shape[1], _num_live(group)
    live = slice(num_live)
    if num_live < num_tokens:
        _check_length(replace(group, tokens_ST=group.tokens_ST[:, live]), num_tokens)
    published = group.published
    return pb.Group(
        ordinal=group.ordinal,
        example=group.example,
        view=_view_message(group.view),
        published=pb.Published(term=published.term, policy_version=published.policy_version),
        tokens=_pack(group.tokens_ST[:, live], _INT32, name="tokens"),
        log_probs=_pack(group.log_probs_ST[:, live], _FLOAT32, name="log_probs"),
        probe_log_probs=_pack(group.probe_log_probs_STQ[:, live], _FLOAT32, name="probe_log_probs"),
        num_tokens=num_tokens if num_live < num_tokens else 0,
    )


def _num_live(group: Group) -> int:
    """Length of the longest rollout: nothing but zeros stands behind it, in any of the arrays."""
    num_tokens = group.tokens_ST.shape[1]
    is_live_T = np.zeros(num_tokens, dtype=np.bool_)
    for name, array, (_, dtype) in (
        ("tokens", group.tokens_ST, _INT32),
        ("log_probs", group.log_probs_ST, _FLOAT32),
        ("probe_log_probs", group.probe_log_probs_STQ, _FLOAT32),
    ):
        _check_dtype(array, dtype, name=name)
        # By their bits, so that what comes back is what went: -0.0 is no 0.0.
        bits = np.ascontiguousarray(array).view(np.uint32)
        is_live_T |= bits.any(axis=tuple(axis for axis in range(bits.ndim) if axis != 1))
    live = np.flatnonzero(is_live_T)
    return int(live[-1]) + 1 if len(live) else 0


def _padded(array_ST: NDArray[Any], num_tokens: int) -> NDArray[Any]:
    """The array with zeros behind the longest rollout, up to a sequence's length."""
    if array_ST.ndim < 2 or num_tokens <= array_ST.shape[1]:
        return array_ST
    padded_ST = np.zeros((len(array_ST), num_tokens, *array_ST.shape[2:]), array_ST.dtype)
    padded_ST[:, : array_ST.shape[1]] = array_ST
    return padded_ST


def _group(message: pb.Group) -> Group:
    _require(message, "view", "published", "tokens", "log_probs", "probe_log_probs")
    published = message.published
    group = Group(
        ordinal=message.ordinal,
        example=message.example,
        view=_view(message.view),
        published=Published(term=published.term, policy_version=published.policy_version),
        tokens_ST=_unpack(message.tokens, _INT32, name="tokens"),
        log_probs_ST=_unpack(message.log_probs, _FLOAT32, name="log_probs"),
        probe_log_probs_STQ=_unpack(message.probe_log_probs, _FLOAT32, name="probe_log_probs"),
    )
    _check_group(group)
    if not message.num_tokens:
        return group
    _check_length(group, message.num_tokens)
    return replace(
        group,
        tokens_ST=_padded(group.tokens_ST, message.num_tokens),
        log_probs_ST=_padded(group.log_probs_ST, message.num_tokens),
        probe_log_probs_STQ=_padded(group.probe_log_probs_STQ, message.num_tokens),
    )


def _check_length(group: Group, num_tokens: int) -> None:
    """Before room is made for as long a sequence as somebody says."""
    num_rollouts, length = group.tokens_ST.shape
    if num_tokens <= length:
        raise ValueError(
            f"group {group.ordinal} has num_tokens = {num_tokens} but holds {length} tokens of "
            "each rollout: it must be left out, or more"
        )
    num_bytes = 4 * num_rollouts * num_tokens * (2 + group.probe_log_probs_STQ.shape[2])
    if num_bytes > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"group {group.ordinal} takes {num_bytes} bytes at num_tokens = {num_tokens}, but a "
            f"message may have {MAX_MESSAGE_BYTES}: draw fewer samples per group or shorter "
            "sequences"
        )


def _view_message(view: View) -> pb.View:
    window = view.window
    return pb.View(
        flip=view.flip,
        scale=view.scale,
        offset_y=view.offset_y,
        offset_x=view.offset_x,
        window=None
        if window is None
        else pb.Window(aspect=window.aspect, min_area=window.min_area, size=window.size),
    )


def _view(message: pb.View) -> View:
    window = message.window
    return View(
        flip=message.flip,
        scale=message.scale,
        offset_y=message.offset_y,
        offset_x=message.offset_x,
        window=Window(aspect=window.aspect, min_area=window.min_area, size=window.size)
        if message.HasField("window")
        else None,
    )


def _score_message(score: Score) -> pb.Score:
    _check_score(score)
    return pb.Score(
        reward=_pack(score.reward_S, _FLOAT64, name="reward"),
        components={
            name: _pack(array, _FLOAT64, name=name) for name, array in score.components.items()
        },
        aux={name: _pack(array, _FLOAT64, name=name) for name, array in score.aux.items()},
        is_valid=score.is_valid,
    )


def _score(message: pb.Score) -> Score:
    _require(message, "reward")
    score = Score(
        reward_S=_unpack(message.reward, _FLOAT64, name="reward"),
        components=_unpack_all(message.components),
        aux=_unpack_all(message.aux),
        is_valid=message.is_valid,
    )
    _check_score(score)
    return score


def _check_group(group: Group) -> None:
    tokens, log_probs = group.tokens_ST.shape, group.log_probs_ST.shape
    probes = group.probe_log_probs_STQ.shape
    if len(tokens) != 2 or log_probs != tokens or len(probes) != 3 or probes[:2] != tokens:
        raise ValueError(
            f"group {group.ordinal} needs tokens [S, T], log_probs [S, T] and probe_log_probs "
            f"[S, T, Q], got {list(tokens)}, {list(log_probs)} and {list(probes)}"
        )


def _check_score(score: Score) -> None:
    expected = score.reward_S.shape
    if len(expected) != 1:
        raise ValueError(f"a score needs reward [S], got {list(expected)}")
    for name, part in score.components.items():
        if part.shape != expected:
            raise ValueError(
                f"score component '{name}' must be {list(expected)} as reward is, "
                f"got {list(part.shape)}"
            )
    for name, part in score.aux.items():
        if part.shape[:1] != expected:
            raise ValueError(
                f"score aux '{name}' must have {expected[0]} rows as reward has, "
                f"got {list(part.shape)}"
            )


def _check_joined(group: Group, score: Score) -> None:
    if group.tokens_ST.shape[:1] != score.reward_S.shape[:1]:
        raise ValueError(
            f"group {group.ordinal} has {len(group.tokens_ST)} rollouts but its score has "
            f"{score.reward_S.size} rewards"
        )


def _pack(array: NDArray[Any], kind: tuple[pb.DType, np.dtype[Any]], *, name: str) -> pb.Array:
    tag, dtype = kind
    _check_dtype(array, dtype, name=name)
    data = np.ascontiguousarray(array, dtype=dtype).tobytes()
    return pb.Array(dtype=tag, shape=array.shape, data=data)


def _check_dtype(array: NDArray[Any], dtype: np.dtype[Any], *, name: str) -> None:
    if array.dtype != dtype:
        raise ValueError(f"{name} must be {dtype.name}, got {array.dtype.name}")


def _unpack(message: pb.Array, kind: tuple[pb.DType, np.dtype[Any]], *, name: str) -> NDArray[Any]:
    tag, dtype = kind
    if message.dtype != tag:
        raise ValueError(f"{name} must be {pb.DType.Name(tag)}, got dtype {message.dtype}")
    expected = math.prod(message.shape) * dtype.itemsize
    if len(message.data) != expected:
        raise ValueError(
            f"{name} of shape {list(message.shape)} needs {expected} bytes, got {len(message.data)}"
        )
    # Copied, because a view of the message could not be written to, which torch warns of.
    values = np.frombuffer(message.data, dtype=dtype).reshape(message.shape)
    return values.astype(dtype.newbyteorder("="))


def _unpack_all(messages: Mapping[str, pb.Array]) -> dict[str, NDArray[Any]]:
    return {name: _unpack(messages[name], _FLOAT64, name=name) for name in sorted(messages)}


def _to_bytes(message: Message, *, what: str) -> bytes:
    data = message.SerializeToString(deterministic=True)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"{what} takes {len(data)} bytes, but a message may have {MAX_MESSAGE_BYTES}: draw "
            "fewer samples per group or shorter sequences"
        )
    return data


def _parsed(data: bytes, empty: _MessageT) -> _MessageT:
    name = empty.DESCRIPTOR.name
    if len(data) > MAX_MESSAGE_BYTES:
        raise ValueError(
            f"refused a {name} of {len(data)} bytes: a message may have {MAX_MESSAGE_BYTES}"
        )
    try:
        empty.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"{len(data)} bytes are not a {name}: {error}") from error
    return empty


def _require(message: Message, *fields: str) -> None:
    for field in fields:
        if not message.HasField(field):
            raise ValueError(f"a {message.DESCRIPTOR.name} needs its field '{field}'")
