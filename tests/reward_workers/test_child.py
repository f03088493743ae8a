from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import reward_workers.child
from reward_workers.child import ChildDied, ChildState, ScorerChild
from reward_workers.scorer_wire import Reply, Scored, Start, Started
from tests.reward_workers.scoring_run import by_token_spec, group_of
from tests.reward_workers.user_folder.by_token import PRINT

pytestmark = pytest.mark.alone


def start_child(data: Path) -> ScorerChild:
    start = Start(by_token_spec(data).to_bytes(), str(data), deadline_seconds=5.0)
    return ScorerChild(start, threads=1, startup_seconds=60.0, started_at=time.monotonic())


@pytest.fixture
def child(data: Path) -> Iterator[ScorerChild]:
    with contextlib.closing(start_child(data)) as child:
        yield child


def answer(child: ScorerChild) -> Reply:
    while True:
        readable, _, _ = select.select([child.channel], [], [], 60.0)
        assert readable, "no answer within a minute"
        reply = child.receive()
        if reply is not None:
            return reply


def test_a_child_starts_is_asked_and_answers(child: ScorerChild) -> None:
    states = [child.state]
    reply = answer(child)
    assert isinstance(reply, Started) and reply.refusal == ""
    assert child.due == float("inf")
    states.append(child.state)
    child.ask(group_of(0, 1, 2, 3), now=100.0)
    # The deadline begins with the question, however long the start took.
    assert child.due == 105.0
    states.append(child.state)
    assert isinstance(answer(child), Scored)
    states.append(child.state)
    assert states == [ChildState.STARTING, ChildState.READY, ChildState.BUSY, ChildState.READY]
    assert child.num_groups == 1


def test_what_reward_code_prints_goes_to_stderr_and_disturbs_nothing(
    data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.closing(start_child(data)) as child:
        answer(child)
        child.ask(group_of(0, PRINT, 2, 3), now=0.0)
        assert isinstance(answer(child), Scored)
    printed = capfd.readouterr()
    assert printed.out == "" and "xxx" in printed.err and "garbage" in printed.err


def test_a_child_that_reads_nothing_does_not_block_its_worker(child: ScorerChild) -> None:
    answer(child)
    os.kill(child.pid, signal.SIGSTOP)
    started = time.monotonic()
    child.ask(bytes(3_000_000), now=started)
    assert child.is_sending
    child.flush()
    assert child.receive() is None
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda child: os.kill(child.pid, signal.SIGTERM), "scorer was ended by SIGTERM"),
        (lambda child: child.channel.shutdown(socket.SHUT_WR), "scorer ended with exit code 0"),
    ],
)
def test_the_end_of_a_child_says_how_it_came(
    child: ScorerChild,
    end: Callable[[ScorerChild], None],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A worker has no time to wait for one that is slow to end; on a busy machine Python may be.
    monkeypatch.setattr(reward_workers.child, "_EXIT_SECONDS", 60.0)
    answer(child)
    end(child)
    with pytest.raises(ChildDied, match=how):
        answer(child)


def test_a_closed_child_is_gone(child: ScorerChild) -> None:
    child.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
