"""How many reward workers a run needs."""

from __future__ import annotations

import pytest

from rewardtune.capacity import reward_workers_required


@pytest.mark.parametrize(
    ("core_seconds", "rate", "cores", "expected"),
    [(0.5, 10.0, 1, 6), (0.5, 10.0, 4, 2), (0.001, 1.0, 1, 1), (4.0, 16.0, 8, 10)],
)
def test_a_fifth_more_cores_than_scoring_keeps_busy(
    core_seconds: float, rate: float, cores: int, expected: int
) -> None:
    found = reward_workers_required(
        core_seconds_per_group=core_seconds, groups_per_second=rate, cores_per_worker=cores
    )
    assert found == expected
