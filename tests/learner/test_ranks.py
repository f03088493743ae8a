"""One learner in several processes: the same bytes as in one."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner import ranks
from learner.not_finite import NotFinite
from learner.ranks import LocalShards, MeetingPoint, RankLost, TorchRanks
from tests.learner import rank_run

pytestmark = pytest.mark.alone

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def started(
    num_ranks: int, *, fate: str = "none", step: int = 0, timeout_seconds: float = 60.0
) -> Iterator[list[subprocess.Popen[str]]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.learner.rank_run", str(rank), str(num_ranks)),
                *(fate, str(step), str(timeout_seconds)),
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        # Once all are there: the time that they take to start is none of the group's.
        port, *_ = [process.stdout.readline() for process in processes if process.stdout]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(port)
            process.stdin.flush()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def lines(process: subprocess.Popen[str], *, timeout_seconds: float = 60.0) -> list[dict[str, Any]]:
    output, errors = process.communicate(timeout=timeout_seconds)
    assert process.returncode in (0, 3, -signal.SIGKILL), errors
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def alone() -> list[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the ranks: their number moves bits
    try:
        return rank_run.alone()
    finally:
        torch.set_num_threads(threads)


def test_the_steps_are_what_they_should_test(alone: list[dict[str, Any]]) -> None:
    """One invalid group, an invalid shard, nothing valid, not finite; the others move weights."""
    *steps, last = alone
    assert [step["is_skipped"] for step in steps] == [False] * 3 + [True] + [False] * 2
    digests = [step["digest"] for step in steps]
    assert len(set(digests)) == 5 and digests[2] == digests[3]
    assert last["ended"] == "step 7: the loss is not finite (nan)"
    assert (last["digest"], last["ledger"]) == (digests[-1], steps[-1]["ledger"])
    assert len(last["ledger"]["invalid"]) == 1 + 4 + 8
    assert "soft_target_loss" in alone[0]["metrics"]
    assert rank_run.alone(num_shards=1)[0]["digest"] != digests[0]


def test_two_ranks_give_the_bytes_of_one(alone: list[dict[str, Any]]) -> None:
    with started(2) as processes:
        found = [lines(process) for process in processes]
    for rank, (*steps, last) in enumerate(found):
        assert steps == alone, f"rank {rank}"
        assert last == {"decided": 10, "shared": ["0", ""], "has_waited": True}


@pytest.mark.parametrize(("fate", "timeout_seconds"), [("killed", 30.0), ("stopped", 2.0)])
def test_when_a_rank_is_lost_the_others_say_so_in_time(
    alone: list[dict[str, Any]], fate: str, timeout_seconds: float
) -> None:
    with started(2, fate=fate, step=2, timeout_seconds=timeout_seconds) as processes:
        found = lines(processes[0])
        assert [step["step"] for step in found[:-1]] == [0, 1]
        assert found[1] == alone[1]
        assert "rank 0 lost another rank" in found[-1]["lost"]
        assert processes[0].returncode == 3


def test_a_rank_that_never_comes_is_lost() -> None:
    begun = time.monotonic()
    meeting = MeetingPoint("127.0.0.1")
    with pytest.raises(RankLost, match=r"rank 0 of 2 did not meet the others at 127\.0\.0\.1"):
        TorchRanks(
            rank=0,
            num_ranks=2,
            address=f"127.0.0.1:{meeting.port}",
            device=torch.device("cpu"),
            listener=meeting,
            timeout_seconds=1.0,
        )
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("rank_0_is_fine", "error", "said"),
    [
        (True, RankLost, r"step 7: the loss is not finite \(nan\) on rank 1, but not on rank 0"),
        (False, NotFinite, r"step 1: what rank 0 computed is not finite"),
    ],
)
def test_a_rank_that_finds_something_else_than_rank_0_does_not_go_on(
    rank_0_is_fine: bool, error: type[Exception], said: str
) -> None:
    class Rank1(LocalShards):
        rank = property(lambda self: 1)

        def decide(self, choice: int) -> int:
            return int(rank_0_is_fine)

    learner = rank_run.made_learner(Rank1())
    before = copy.deepcopy(learner.weights())
    step = 0
    if rank_0_is_fine:
        step = max(rank_run.NOT_FINITE)
        learner.ledger.num_batches = step
    with pytest.raises(error, match=said):
        learner.reinforce(*rank_run.made_batch(step))
    assert learner.policy_version == step
    assert all(torch.equal(weight, before[name]) for name, weight in learner.weights().items())


def test_a_rank_needs_the_pictures_of_its_own_rows_alone() -> None:
    learner = rank_run.made_learner(LocalShards())
    assert learner.own_rows == range(rank_run.BATCH)
    scored, images_GHWC = rank_run.made_batch(0)
    with pytest.raises(ValueError, match=r"rows 0\.\.7 of the batch .* 8 pictures, got 4"):
        learner.reinforce(scored, images_GHWC[:4])
    assert learner.policy_version == 0


def test_a_meeting_point_listens_on_its_own_interface_and_no_other() -> None:
    meeting = MeetingPoint("127.0.0.1")
    with socket.create_connection(("127.0.0.1", meeting.port), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", meeting.port), timeout=5)
    meeting.close()


@given(st.lists(st.integers(0, 40), max_size=12))
def test_buckets_hold_everything_once_and_in_order(sizes: list[int]) -> None:
    limit = 50
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_BUCKET_ELEMENTS", limit)
        buckets = list(ranks._buckets(sizes))
    assert [index for bucket in buckets for index in range(len(sizes))[bucket]] == list(
        range(len(sizes))
    )
    assert all(sum(sizes[bucket]) <= limit for bucket in buckets)
    assert all(
        sum(sizes[first]) + sizes[second.start] > limit
        for first, second in itertools.pairwise(buckets)
    )


def test_shards_are_added_in_their_order() -> None:
    # In float32 the order shows: (1 + 1e8) - 1e8 is 0, but 1 + (1e8 - 1e8) is 1.
    shards = [[torch.tensor([value])] for value in (1.0, 1e8, -1e8)]
    assert LocalShards().sum(shards)[0].item() == 0.0
