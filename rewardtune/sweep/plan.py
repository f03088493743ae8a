"""Which runs a sweep is made of, as far as the finished ones decide it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rewardtune.sweep.config import Sweep
from rewardtune.sweep.figures import difference


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """In the order in which runs are made: an unfinished sweep has about as many of every row."""

    seed: int
    row: str

    @property
    def name(self) -> str:
        return f"{self.row}/{self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    rows: tuple[str, ...]
    num_seeds: int
    """Of every row."""
    max_num_seeds: int
    """Of rows in a pair that is not told apart."""
    pairs: tuple[tuple[str, str], ...] = ()


def plan_of(sweep: Sweep) -> Plan:
    settings = sweep.settings
    until = settings.until
    return Plan(
        rows=tuple(sweep.distinct),
        num_seeds=settings.num_seeds,
        max_num_seeds=until.max_num_seeds if until else settings.num_seeds,
        pairs=tuple((sweep.runs_of(a), sweep.runs_of(b)) for a, b in until.pairs) if until else (),
    )


def wanted_runs(plan: Plan, finished: Mapping[Run, float]) -> list[Run]:
    """All runs known to be needed, finished or not, in the order to make them.

    Rows of a pair get one more seed whenever all rows of all pairs have what they were given and
    the pair is not resolved yet. So the runs of a whole sweep do not depend on the order in which
    they end, nor on how many are made at a time.

    Args:
        finished: the compared metric by run.
    """
    counts = dict.fromkeys(plan.rows, plan.num_seeds)
    paired = {row for pair in plan.pairs for row in pair}
    while all(run in finished for run in _runs(paired, counts)):
        more = {
            row
            for pair in plan.pairs
            if not is_resolved(pair, counts, finished)
            for row in pair
            if counts[row] < plan.max_num_seeds
        }
        if not more:
            break
        for row in more:
            counts[row] += 1
    place = {row: index for index, row in enumerate(plan.rows)}
    return sorted(_runs(plan.rows, counts), key=lambda run: (run.seed, place[run.row]))


def is_resolved(
    pair: tuple[str, str], counts: Mapping[str, int], finished: Mapping[Run, float]
) -> bool:
    one, other = ([finished[run] for run in _runs([row], counts)] for row in pair)
    return difference(one, other).is_resolved


def _runs(rows: Iterable[str], counts: Mapping[str, int]) -> list[Run]:
    return [Run(seed, row) for row in rows for seed in range(counts[row])]
