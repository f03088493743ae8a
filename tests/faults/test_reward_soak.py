from __future__ import annotations

import numpy as np
import pytest

from tests.faults.reward_soak import Look, judged, slope_interval


def looks(*, growth: float, noise: float = 20.0) -> list[Look]:
    rng = np.random.default_rng(0)
    return [
        Look(
            groups=100 * i,
            worker_kilobytes=40_000,
            scorer_kilobytes=round(80_000 + growth * i + noise * rng.normal()),
            core_seconds=0.2 * i,
        )
        for i in range(1, 101)
    ]


def test_memory_that_stays_is_flat_and_memory_that_grows_is_not() -> None:
    assert judged(looks(growth=0.0)).is_flat
    grown = judged(looks(growth=2.0))
    assert not grown.is_flat
    assert grown.slope_low < 2.0 * 1024 / 100 < grown.slope_high
    assert grown.throughput_ratio == pytest.approx(1.0)


def test_the_interval_is_the_textbooks() -> None:
    # x = 0..4, y = x + (0, 1, 0, -1, 0): slope 0.8, standard error sqrt(1.6 / 3 / 10).
    x_N = np.arange(5.0)
    slope, low, high = slope_interval(x_N, x_N + np.array([0, 1, 0, -1, 0]))
    assert slope == pytest.approx(0.8)
    assert high - slope == pytest.approx(slope - low) == pytest.approx(3.182446 * 0.2309401)


def test_a_soak_that_was_cut_short_is_not_judged() -> None:
    with pytest.raises(ValueError, match="too few"):
        judged(looks(growth=0.0)[:20])
