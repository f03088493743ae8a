from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_workers.scorer_wire import (
    MAX_FRAME_BYTES,
    MAX_TEXT_BYTES,
    BrokenFrame,
    Failed,
    FrameReader,
    Reply,
    Scored,
    Start,
    Started,
    Unfit,
    group_frame,
    one_line,
    read_reply,
    read_request,
    reply_frame,
    start_frame,
    tail,
)

LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=20)
SECONDS = st.floats(min_value=0, max_value=1e6)
REPLIES = st.one_of(
    st.builds(Started, LINES, LINES, LINES),
    st.builds(Scored, st.binary(max_size=50), SECONDS, SECONDS),
    st.builds(Failed, st.booleans(), LINES, st.text(st.characters(codec="utf-8"), max_size=50)),
    st.builds(Unfit, LINES),
)


def frames(stream: bytes, sizes: list[int]) -> list[bytes]:
    """What a reader makes of a stream that arrives in pieces of these sizes, again and again."""
    reader, found, at = FrameReader(), [], 0
    while at < len(stream):
        for size in sizes:
            reader.feed(stream[at : at + size])
            at += size
            while (frame := reader.next()) is not None:
                found.append(frame)
    return found


@given(
    st.lists(REPLIES, min_size=1, max_size=4),
    st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=5),
)
def test_replies_come_back_however_the_stream_is_cut(
    replies: list[Reply], sizes: list[int]
) -> None:
    stream = b"".join(map(reply_frame, replies))
    assert [read_reply(frame) for frame in frames(stream, sizes)] == replies


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=30), SECONDS)
def test_requests_come_back(spec: bytes, group: bytes, seconds: float) -> None:
    start = Start(spec, "/data", seconds)
    stream = start_frame(start) + group_frame(group)
    assert [read_request(frame) for frame in frames(stream, [7])] == [start, group]


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_a_broken_frame(frame: bytes) -> None:
    for read in (read_reply, read_request):
        with contextlib.suppress(BrokenFrame):
            read(frame)


def test_a_frame_that_claims_too_much_is_refused_before_it_is_read() -> None:
    reader = FrameReader()
    reader.feed(struct.pack(">I", MAX_FRAME_BYTES + 1))
    with pytest.raises(BrokenFrame, match=f"a message may have {MAX_FRAME_BYTES}"):
        reader.next()


def test_a_message_too_large_for_a_frame_is_not_sent() -> None:
    with pytest.raises(ValueError, match=f"a frame may have {MAX_FRAME_BYTES} bytes"):
        group_frame(bytes(MAX_FRAME_BYTES))


def test_a_message_of_a_failure_is_one_line_of_bounded_length() -> None:
    assert one_line("\n  first \nsecond") == "first"
    assert one_line("") == ""
    assert one_line("x" * 600) == "x" * 497 + "..."
    assert one_line("caf\udce9") == "caf?"


def test_of_a_long_traceback_the_end_is_kept() -> None:
    assert tail("é" * MAX_TEXT_BYTES + "the end").endswith("é" * 100 + "the end")
    assert len(tail("é" * MAX_TEXT_BYTES + "the end").encode()) <= MAX_TEXT_BYTES
