from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from rewardtune.datasets.order import DataOrder, OrderEntry
from rewardtune.datasets.view import ViewConfig
from rewardtune.records import View

_VIEWS = ViewConfig(flip_probability=0.5, min_scale=0.5, max_scale=1.5)


def _entries(order: DataOrder, ordinals: range) -> list[OrderEntry]:
    return [order.entry(ordinal) for ordinal in ordinals]


@pytest.mark.parametrize("num_examples", [1, 2, 7, 100])
def test_every_epoch_visits_each_example_once(num_examples: int) -> None:
    order = DataOrder(num_examples, seed=1, views=_VIEWS)
    for epoch in range(4):
        entries = _entries(order, range(epoch * num_examples, (epoch + 1) * num_examples))
        assert {entry.epoch for entry in entries} == {epoch}
        assert sorted(entry.example for entry in entries) == list(range(num_examples))


def test_random_access_equals_sequential_access() -> None:
    sequential = _entries(DataOrder(11, seed=5, views=_VIEWS), range(100))
    order = DataOrder(11, seed=5, views=_VIEWS)
    ordinals = list(range(100))
    random.Random(0).shuffle(ordinals)
    assert {o: order.entry(o) for o in ordinals} == dict(enumerate(sequential))


def test_epochs_and_seeds_differ() -> None:
    def examples(seed: int, epoch: int) -> tuple[int, ...]:
        order = DataOrder(50, seed=seed, views=_VIEWS)
        return tuple(e.example for e in _entries(order, range(epoch * 50, epoch * 50 + 50)))

    orders = {examples(seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in range(3)}
    assert len(orders) == 9
    # Neither is one the other's continuation: (seed, epoch) is a key, not a sum.
    assert examples(0, 1) != examples(1, 0)


def test_views_differ_by_ordinal_and_seed_but_not_by_data_set() -> None:
    views = [e.view for e in _entries(DataOrder(10, seed=3, views=_VIEWS), range(200))]
    assert len({view.scale for view in views}) == 200
    assert 60 < sum(view.flip for view in views) < 140
    assert [e.view for e in _entries(DataOrder(99, seed=3, views=_VIEWS), range(200))] == views
    assert DataOrder(10, seed=4, views=_VIEWS).entry(0).view != views[0]


def test_plain_views_where_none_are_asked_for() -> None:
    order = DataOrder(10, seed=3, views=ViewConfig())
    assert all(not e.view.flip and e.view.scale == 1.0 for e in _entries(order, range(30)))


def test_the_views_are_the_same_in_every_version_of_this_program() -> None:
    assert DataOrder(8, seed=42, views=_VIEWS).entry(3).view == View(
        flip=False,
        scale=0.5027155037275531,
        offset_y=0.5948698556252177,
        offset_x=0.776133555822645,
    )


def test_crops_are_drawn_from_the_ordinal_alone() -> None:
    views = ViewConfig(keep_aspect=False, flip_probability=0.5, min_crop_area=0.05)
    drawn = [e.view for e in _entries(DataOrder(10, seed=3, views=views), range(200))]
    assert drawn == [DataOrder(7, seed=3, views=views).entry(o).view for o in range(200)]
    windows = [view.window for view in drawn if view.window is not None]
    assert len({window.size for window in windows}) == 200
    assert len({window.aspect for window in windows}) == 200
    assert all(0.75 <= window.aspect <= 1.33 for window in windows)
    assert {window.min_area for window in windows} == {0.05}


def test_places_are_evenly_spread() -> None:
    # Which example comes first, over many epochs: chi-square with 9 degrees of freedom.
    order = DataOrder(10, seed=8, views=ViewConfig())
    first = [order.entry(epoch * 10).example for epoch in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert float(((counts - 200) ** 2 / 200).sum()) < 30


def test_the_order_is_the_same_in_every_version_of_this_program() -> None:
    # Written down once: a change here changes every run's identity.
    order = DataOrder(8, seed=42, views=ViewConfig(flip_probability=0.5))
    assert [order.entry(o).example for o in range(16)] == [
        7,
        1,
        6,
        4,
        3,
        5,
        0,
        2,
        4,
        5,
        3,
        0,
        2,
        7,
        1,
        6,
    ]
    assert [int(order.entry(o).view.flip) for o in range(16)] == [
        1,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        1,
        1,
        1,
        0,
        0,
        1,
    ]


def test_threads_may_share_an_order() -> None:
    order = DataOrder(40, seed=2, views=_VIEWS)
    expected = _entries(DataOrder(40, seed=2, views=_VIEWS), range(400))
    got: list[list[OrderEntry]] = []
    threads = [
        threading.Thread(target=lambda: got.append(_entries(order, range(400)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [expected] * 4


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one example, got 0"):
        DataOrder(0, seed=1, views=_VIEWS)
    with pytest.raises(ValueError, match="seed must be"):
        DataOrder(5, seed=-1, views=_VIEWS)
    with pytest.raises(ValueError, match="ordinals start at 0, got -1"):
        DataOrder(5, seed=1, views=_VIEWS).entry(-1)
