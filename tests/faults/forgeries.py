"""What somebody with a worker's password could write into a queue, drawn by a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from protos.v1 import group_pb2 as pb
from rewardtune.records import Group, Score, ScoredGroup
from rewardtune.records.score_promise import ScorePromise
from rewardtune.transport.wire import group_from_bytes, scored_group_to_bytes


def damaged_result(rng: random.Random, body: bytes, promise: ScorePromise) -> bytes:
    """A result for this group with one thing wrong that no honest worker's has."""
    message = pb.ScoredGroup.FromString(plausible_result(body, promise))
    how = rng.random()
    if how < 0.05:
        return rng.randbytes(rng.randrange(200))
    data = message.SerializeToString(deterministic=True)
    if how < 0.1:
        return data[: rng.randrange(len(data))]
    if how < 0.7:
        _spoil(rng, *rng.choice(list(_fields(message.group))))
    else:
        _spoil_score(rng, message.score, promise)
    spoilt = message.SerializeToString(deterministic=True)
    # A field may have been given the value that it had.
    return spoilt if spoilt != data else b"FORGED"


def plausible_result(body: bytes, promise: ScorePromise) -> bytes:
    """What passes every check of the learner for this group, whatever it is worth."""
    group: Group = group_from_bytes(body)
    size = len(group.tokens_ST)
    score = Score(
        reward_S=np.zeros(size),
        components={name: np.zeros(size) for name in promise.components},
        aux={name: np.zeros((size, *shape)) for name, shape in (promise.aux or {}).items()},
    )
    return scored_group_to_bytes(ScoredGroup(group, score))


def stream_entry(rng: random.Random) -> dict[bytes, bytes]:
    """Fields of an entry of the work stream that is no job."""
    kinds: list[Callable[[], dict[bytes, bytes]]] = [
        lambda: {b"ordinal": b"abc"},
        lambda: {b"ordinal": b"%d" % rng.randrange(-(2**63), 0)},
        lambda: {b"ordinal": b"%d" % rng.randrange(10**6, 2**63)},
        lambda: {b"ordinal": b"%d" % rng.randrange(40)},
        lambda: {b"ordinal": rng.randbytes(rng.randrange(1, 40))},
        lambda: {b"ordinal": b"1e3"},
        lambda: {rng.randbytes(8): rng.randbytes(8)},
        lambda: {b"ordinal": b"%d" % rng.randrange(40), b"body": b"more"},
        lambda: {b"": b""},
        lambda: {b"ordinal": b"00%d" % rng.randrange(40)},
    ]
    return rng.choice(kinds)()


Command = tuple[str | bytes | int, ...]


def direct_command(rng: random.Random, *, run: str, ordinal: int) -> Command:
    """A command of Redis over one of the run's keys, of those that a worker's user may send.

    Beside what ends a job by a report that any worker may make: a failure that nobody had.

    Args:
        ordinal: one that the run is at, or near it.
    """
    root = f"{{{run}}}:"
    term, work, bell, calls = root + "term", root + "work", root + "bell", root + "calls"
    job, result = f"{root}0:job:{ordinal}", f"{root}0:result:{ordinal}"
    noise = rng.randbytes(rng.randrange(1, 60))
    number = rng.choice((b"-1", b"0", b"1000000", b"9" * 30, b"abc", b"", b"1.5", noise))
    plain = rng.choice((term, work, calls, bell, root + "letters", root + "refused", job, result))
    plain = rng.choice((plain, root + "workers", root + "draining", root + "worker:honest"))
    forged = b"s" + (6).to_bytes(2, "big") + b"forger" + (0).to_bytes(2, "big") + noise
    counts = ("results", "leases", "redeliveries", "bad_entries", "failures:crash")
    limits = ("number", "frontier", "capacity", "lease_ms", "same_exception", "max_crashes")
    kinds: list[Callable[[], Command]] = [
        lambda: ("DEL", plain),
        lambda: ("SET", plain, noise),
        lambda: ("PEXPIRE", plain, 1),
        lambda: ("HSET", term, rng.choice(limits), number),
        lambda: ("HSET", term, "number", b"%d" % rng.randrange(1, 9)),
        lambda: ("HSET", term, "frontier", b"%d" % (ordinal + rng.randrange(1, 40))),
        lambda: ("HSET", term, rng.choice(("spec", "seal")), noise),
        lambda: ("HSET", term, rng.choice(counts), number),
        lambda: ("HDEL", term, rng.choice((*limits, *counts, "spec", "seal", "run_id"))),
        lambda: ("XADD", work, "*", *(part for pair in stream_entry(rng).items() for part in pair)),
        lambda: ("XADD", work, f"{2**63}-1", "ordinal", ordinal),
        lambda: ("XADD", bell, f"{2**63}-1", "term", 0),
        lambda: ("XADD", bell, "*", "noise", noise),
        lambda: ("XADD", root + "letters", "*", "term", noise),
        lambda: ("XREADGROUP", "GROUP", "workers", "forger", "COUNT", 3, "STREAMS", work, ">"),
        lambda: ("XGROUP", "DELCONSUMER", work, "workers", "honest"),
        lambda: ("HSET", job, rng.choice(("body", "seal", "entry", "lease", "worker")), noise),
        lambda: ("HDEL", job, rng.choice(("body", "seal", "entry", "lease"))),
        lambda: ("SET", result, forged),
        lambda: ("SET", result, rng.choice((b"s", b"", b"d", noise))),
        lambda: ("RPUSH", result, noise),
        lambda: ("SADD", root + "workers", noise),
        lambda: ("HSET", root + "worker:ghost", noise, noise),
        lambda: ("RPUSH", calls, *([noise] * 20)),
    ]
    return rng.choice(kinds)()


def _fields(message: Message) -> Iterator[tuple[Message, Any]]:
    """Every field of a message and of those in it."""
    for field in message.DESCRIPTOR.fields:
        yield message, field
        if field.message_type is not None and not field.is_repeated:
            yield from _fields(getattr(message, field.name))


def _spoil(rng: random.Random, message: Message, field: Any) -> None:
    """Give a field another value of its type, or none."""
    name = field.name
    if rng.random() < 0.2:
        message.ClearField(name)
    elif field.is_repeated:
        getattr(message, name).extend(rng.choices(range(9), k=1 + rng.randrange(3)))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        setattr(message, name, not getattr(message, name))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        setattr(message, name, rng.choice((float("nan"), float("inf"), rng.gauss(0, 100))))
    elif field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        setattr(message, name, rng.randrange(4))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        data = bytearray(getattr(message, name))
        if data and rng.random() < 0.8:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            data += rng.randbytes(1 + rng.randrange(8))
        setattr(message, name, bytes(data))
    elif field.message_type is not None:
        message.ClearField(name)
        if rng.random() < 0.5:
            getattr(message, name).SetInParent()
    else:
        is_short = field.cpp_type == FieldDescriptor.CPPTYPE_UINT32
        setattr(message, name, rng.randrange(2**32 if is_short else 2**40))


def _spoil_score(rng: random.Random, score: pb.Score, promise: ScorePromise) -> None:
    """What the task promises of a score, broken in one place."""
    arrays = {"reward": score.reward, **dict(score.components.items()), **dict(score.aux.items())}
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    kinds: list[Callable[[], object]] = [
        lambda: score.ClearField("is_valid"),
        lambda: score.aux["unheard_of"].CopyFrom(score.reward),
        lambda: score.aux.pop(rng.choice(sorted(score.aux))),
        lambda: score.components.pop(rng.choice(sorted(score.components))),
        lambda: array.shape.append(2),
        lambda: setattr(array, "dtype", pb.DTYPE_FLOAT32),
        lambda: setattr(array, "data", array.data[:-1]),
        lambda: _set_one(rng, array, rng.choice((np.nan, np.inf, -np.inf))),
        lambda: _set_one(rng, score.reward, rng.choice((1e5, -1e5, 187_502.0))),
        lambda: _set_one(rng, score.aux[rng.choice(sorted(score.aux))], 1e5),
    ]
    rng.choice(kinds)()


def _set_one(rng: random.Random, array: pb.Array, value: float) -> None:
    values = np.frombuffer(array.data, dtype="<f8").copy()
    values[rng.randrange(values.size)] = value
    array.data = values.tobytes()
