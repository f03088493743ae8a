"""The checks of running services can fail; that the runs behind them run is theirs to show."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ray_ratio import record
from tests.faults.recovery import BLOWS, problems_of
from tests.faults.scaling import of_linear, rate_problems, wait_problems

WAIT: dict[str, Any] = {
    "depth": 1,
    "workers": 2,
    "step_seconds": 0.5,
    "latency_seconds": 0.4,
    "wait_ratio": 0.01,
    "workers_needed": 1.9,
    "status_depth": 1,
    "status_depth_required": 1,
    "status_workers_required": 2,
}


def rate_line(rates: list[float], **changes: Any) -> dict[str, Any]:
    workers = [1, 4, 1]
    found = {"redeliveries": 0, "duplicate_commits": 0, "redraws": 0, "workers": workers}
    return {**found, "of_linear": of_linear(rates, workers), **changes}


def test_rates_are_held_against_the_first() -> None:
    assert of_linear([5.0, 18.0, 4.5], [1, 4, 1]) == pytest.approx([1.0, 0.9, 0.9])
    assert of_linear([10.0, 5.0], [2, 1]) == pytest.approx([1.0, 1.0])


def test_a_rate_that_does_not_follow_and_work_done_twice_are_found() -> None:
    assert rate_problems(rate_line([5.0, 17.5, 5.0])) == []
    (slow,) = rate_problems(rate_line([5.0, 16.0, 5.0]))
    assert "4 workers score at 80% of linear" in slow
    (still,) = rate_problems(rate_line([5.0, 20.0, 10.0]))
    assert "1 workers score at 200%" in still
    (redone,) = rate_problems(rate_line([5.0, 20.0, 5.0], redeliveries=1))
    assert "1 redeliveries" in redone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"wait_ratio": 0.06}, "the learner waits 6.0%"),
        ({"latency_seconds": 0.6}, "too long for the check"),
        ({"workers": 1}, "too few workers"),
        ({"status_workers_required": 1}, "status requires 1 workers"),
        ({"status_workers_required": 4}, "status requires 4 workers"),
        ({"status_depth": 2}, "status says depth 2"),
        ({"status_depth_required": 2}, "requires depth 2"),
    ],
)
def test_a_learner_that_waits_or_a_status_that_is_wrong_is_found(
    changes: dict[str, Any], said: str
) -> None:
    assert wait_problems(WAIT) == []
    (problem,) = wait_problems({**WAIT, **changes})
    assert said in problem


@pytest.mark.parametrize("blow", BLOWS, ids=lambda blow: blow.name)
def test_the_worst_of_several_kills_counts(blow: Any) -> None:
    line = {
        "name": blow.name,
        "limited": blow.limited,
        "limit_seconds": blow.limit_seconds,
        "first_seconds": [1.0, 2.0],
        "through_seconds": [1.0, 2.0],
    }
    assert problems_of(line) == []
    late = {**line, f"{blow.limited}_seconds": [1.0, blow.limit_seconds + 0.1]}
    (problem,) = problems_of(late)
    assert problem.startswith(blow.name)


def test_ray_is_held_against_the_faster_way_in_one_process() -> None:
    seconds = {"ray": [2.6, 2.4, 9.0], "1 thread": [4.0], "2 threads": [2.0]}
    assert record(seconds)["ratio"] == pytest.approx(1.3)
