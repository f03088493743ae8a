"""A batch on its way from the rank that has it to those that learn from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from learner.acceptance import accepted
from learner.ranks import LocalShards
from learner.source import (
    Collected,
    SharedSource,
    SharingSource,
    batch_from_bytes,
    batch_to_bytes,
)
from rewardtune.records import ScoredGroup
from rewardtune.records.score_promise import ScorePromise
from rewardtune.transport.queue.job_queue import Result
from rewardtune.transport.wire import (
    group_to_bytes,
    scored_group_from_bytes,
    scored_group_to_bytes,
)
from tests.learner.rank_run import NOT_FINITE, made_batch


class _Recorded(LocalShards):
    """Keeps what rank 0 shares; as another rank, is given it."""

    def __init__(self, arrived: Sequence[bytes] = ()) -> None:
        self.sent: list[bytes] = []
        self._arrived = list(arrived)

    def share(self, data: bytes) -> bytes:
        self.sent.append(data)
        return self._arrived.pop(0) if self._arrived else data


class _Later:
    """Has its batch when it is asked for the second time."""

    def __init__(self, scored: Sequence[ScoredGroup]) -> None:
        self._answers = [None, Collected(scored, {"seconds_wait": 0.5})]
        self.consumed_before: list[int] = []

    def collect(self, ordinals: range) -> Collected | None:
        return self._answers.pop(0)

    def consumed(self, *, before: int) -> None:
        self.consumed_before.append(before)


def scored_batch() -> list[ScoredGroup]:
    """One group could not be scored, another's reward is not finite, which no queue lets by."""
    scored, _ = made_batch(max(NOT_FINITE))
    scored = [scored_group_from_bytes(scored_group_to_bytes(each)) for each in scored]
    scored[2] = accepted(
        Result(dead=group_to_bytes(scored[2].group)),
        term=0,
        ordinal=scored[2].group.ordinal,
        seal=None,
        promise=ScorePromise(),
    )
    assert not scored[2].score.is_valid
    assert any(np.isinf(each.score.reward_S).any() for each in scored)
    return scored


def as_bytes(scored: Sequence[ScoredGroup]) -> list[bytes]:
    return [scored_group_to_bytes(each) for each in scored]


def test_every_rank_is_given_the_batch_that_rank_0_has() -> None:
    scored = scored_batch()
    inner, ranks = _Later(scored), _Recorded()
    sharing = SharingSource(inner, ranks)
    ordinals = range(len(scored))
    assert sharing.collect(ordinals) is None
    collected = sharing.collect(ordinals)
    assert collected is not None
    assert collected.seconds == {"seconds_wait": 0.5}
    sharing.consumed(before=8)
    assert inner.consumed_before == [8]

    shared = SharedSource(_Recorded(ranks.sent))
    assert shared.collect(ordinals) is None, "not yet for one is not yet for all"
    found = shared.collect(ordinals)
    assert found is not None
    assert as_bytes(found.scored) == as_bytes(collected.scored) == as_bytes(scored)


@pytest.mark.parametrize("damage", ["cut off", "one byte more"])
def test_what_is_no_whole_batch_is_refused(damage: str) -> None:
    data = batch_to_bytes(scored_batch())
    assert as_bytes(batch_from_bytes(data)) == as_bytes(scored_batch())
    with pytest.raises(ValueError, match="whole"):
        batch_from_bytes(data[:-1] if damage == "cut off" else data + b"\0")
