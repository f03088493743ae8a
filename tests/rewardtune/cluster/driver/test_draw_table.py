"""What is drawn when: every group once per term at its pinned version, whatever gets lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.cluster.driver.draw_table import Draw, DrawTable

BATCH, MICRO = 8, 4


def table_of(*, depth: int, num_batches: int = 6) -> DrawTable:
    return DrawTable(
        batch_size=BATCH,
        micro_batch=MICRO,
        num_batches=num_batches,
        drawn_with=lambda batch: max(0, batch - depth),
        depth=depth,
    )


def taken(table: DrawTable) -> list[Draw]:
    draws = []
    while (draw := table.next()) is not None:
        draws.append(draw)
    return draws


def test_nothing_is_drawn_before_the_learner_has_begun() -> None:
    table = DrawTable(
        batch_size=BATCH, micro_batch=MICRO, num_batches=6, drawn_with=lambda b: b, depth=1
    )
    assert table.next() is None


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_depth_plus_one_batches_exist_each_at_its_pinned_version(depth: int) -> None:
    table = table_of(depth=depth)
    table.begin(version=0)
    draws = taken(table)
    assert [d.first_ordinal for d in draws] == list(range(0, (depth + 1) * BATCH, MICRO))
    table.published(1)
    (first, second) = taken(table)
    assert first.first_ordinal == (depth + 1) * BATCH
    assert first.policy_version == second.policy_version == 1


def test_no_batch_beyond_the_last_is_drawn() -> None:
    table = table_of(depth=2, num_batches=2)
    table.begin(version=0)
    assert len(taken(table)) == 2 * BATCH // MICRO
    table.published(1)
    assert taken(table) == []


def test_a_resumed_run_draws_from_its_frontier() -> None:
    table = table_of(depth=1)
    table.begin(version=3)
    draws = taken(table)
    assert draws[0] == Draw(3 * BATCH, MICRO, 2)
    assert draws[-1] == Draw(4 * BATCH + MICRO, MICRO, 3)


def test_a_lost_draw_is_wanted_again_at_its_version() -> None:
    table = table_of(depth=1)
    table.begin(version=0)
    draw = taken(table)[0]
    table.lost(draw)
    assert table.next() == draw
    assert table.num_redraws == 1


def test_two_scans_in_a_row_make_a_group_missing() -> None:
    table = table_of(depth=0)
    table.begin(version=0)
    first, second = taken(table)
    table.done(first)
    assert table.settled_ordinals() == list(first.ordinals)
    assert table.reconcile([1]) == []
    assert table.reconcile([]) == []  # it was there after all
    assert table.reconcile([1]) == []
    assert table.reconcile([1, second.first_ordinal]) == [first]
    assert table.next() == first
    assert table.next() is None  # the other one is still being drawn


def test_what_was_consumed_is_never_drawn_again() -> None:
    table = table_of(depth=1)
    table.begin(version=0)
    draws = taken(table)
    table.published(1)
    taken(table)
    table.lost(draws[0])
    table.done(draws[1])
    assert table.next() is None
    assert table.settled_ordinals() == []


@given(seed=st.integers(0, 2**32), depth=st.integers(0, 2))
def test_every_batch_gets_drawn_whatever_is_lost(seed: int, depth: int) -> None:
    rng = random.Random(seed)
    table = table_of(depth=depth)
    table.begin(version=0)
    version, in_flight, admitted = 0, [], set()
    for _ in range(2000):
        if version == 6:
            break
        if (draw := table.next()) is not None:
            assert draw.policy_version == max(0, draw.first_ordinal // BATCH - depth) <= version
            assert draw.first_ordinal // BATCH <= version + depth
            assert draw not in in_flight
            in_flight.append(draw)
        if in_flight and rng.random() < 0.8:
            draw = in_flight.pop(rng.randrange(len(in_flight)))
            if rng.random() < 0.3:
                table.lost(draw)
            else:
                table.done(draw)
                admitted |= set(draw.ordinals)
        if admitted and rng.random() < 0.1:
            admitted.discard(rng.choice(sorted(admitted)))  # the queue forgets one
        missing = [o for o in table.settled_ordinals() if o not in admitted]
        table.reconcile(missing)
        if admitted.issuperset(range(version * BATCH, (version + 1) * BATCH)):
            version += 1
            table.published(version)
    assert version == 6
