from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.sweep.figures import difference
from rewardtune.sweep.plan import Plan, Run, wanted_runs

ROWS = ("a", "b", "c", "d")


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rows = ROWS[: draw(st.integers(1, 4))]
    pairs = draw(st.lists(st.sampled_from([*itertools.combinations(rows, 2), None]), max_size=3))
    num_seeds = draw(st.integers(1, 3))
    return Plan(
        rows=rows,
        num_seeds=num_seeds,
        max_num_seeds=num_seeds + draw(st.integers(0, 4)),
        pairs=tuple(pair for pair in pairs if pair is not None),
    )


def value(run: Run, world: int) -> float:
    """What the run will come to; rows lie apart by about the spread of their seeds."""
    return ROWS.index(run.row) + random.Random(f"{world} {run.name}").gauss(0, 1)


def simulate(plan: Plan, world: int, *, order: random.Random, num_jobs: int) -> dict[Run, float]:
    """Make runs as the shell does, ending in any order."""
    finished: dict[Run, float] = {}
    live: list[Run] = []
    while True:
        idle = [r for r in wanted_runs(plan, finished) if r not in finished and r not in live]
        live += idle[: num_jobs - len(live)]
        if not live:
            return finished
        ended = live.pop(order.randrange(len(live)))
        finished[ended] = value(ended, world)


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 10_000), st.randoms(use_true_random=False), st.integers(1, 5))
def test_the_runs_of_a_sweep_do_not_depend_on_the_order_in_which_they_end(
    plan: Plan, world: int, order: random.Random, num_jobs: int
) -> None:
    one_by_one = simulate(plan, world, order=random.Random(0), num_jobs=1)
    assert simulate(plan, world, order=order, num_jobs=num_jobs) == one_by_one


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 10_000))
def test_a_finished_sweep_has_told_its_pairs_apart_or_given_them_all_their_seeds(
    plan: Plan, world: int
) -> None:
    finished = simulate(plan, world, order=random.Random(0), num_jobs=1)
    by_row = {row: [v for run, v in finished.items() if run.row == row] for row in plan.rows}
    paired = {row for pair in plan.pairs for row in pair}
    for row, values in by_row.items():
        seeds = sorted(run.seed for run in finished if run.row == row)
        assert seeds == list(range(len(values))), "without gaps, from 0"
        assert plan.num_seeds <= len(values) <= plan.max_num_seeds
        assert row in paired or len(values) == plan.num_seeds
    for one, other in plan.pairs:
        is_resolved = difference(by_row[one], by_row[other]).is_resolved
        has_all = len(by_row[one]) == len(by_row[other]) == plan.max_num_seeds
        assert is_resolved or has_all


@settings(max_examples=60, deadline=None)
@given(plans(), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_what_was_wanted_once_stays_wanted(plan: Plan, world: int, order: random.Random) -> None:
    finished: dict[Run, float] = {}
    before = wanted_runs(plan, finished)
    while open_runs := [run for run in before if run not in finished]:
        ended = order.choice(open_runs)
        finished[ended] = value(ended, world)
        after = wanted_runs(plan, finished)
        assert set(before) <= set(after)
        before = after


def test_runs_go_seed_by_seed_in_the_order_of_the_rows() -> None:
    plan = Plan(rows=("z", "a"), num_seeds=2, max_num_seeds=2)
    names = [run.name for run in wanted_runs(plan, {})]
    assert names == ["z/0", "a/0", "z/1", "a/1"]


def test_only_the_rows_of_an_unresolved_pair_get_another_seed() -> None:
    pairs = (("a", "b"), ("c", "d"))
    plan = Plan(rows=ROWS, num_seeds=2, max_num_seeds=3, pairs=pairs)
    values = {"a": (0.0, 1.0), "b": (0.5, 0.6), "c": (0.0, 0.1), "d": (5.0, 5.1)}
    finished = {Run(seed, row): values[row][seed] for row in ROWS for seed in range(2)}
    assert Counter(r.row for r in wanted_runs(plan, finished)) == {"a": 3, "b": 3, "c": 2, "d": 2}
    del finished[Run(1, "d")]
    assert len(wanted_runs(plan, finished)) == 8, "no verdict before everything compared is in"
