"""Timing several ways of doing a thing side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def timed(way: Callable[[], object]) -> Callable[[], float]:
    """The same, returning how many seconds it took."""

    def measure() -> float:
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    return measure


def interleaved(ways: Mapping[str, Callable[[], float]], *, num_rounds: int) -> dict[str, float]:
    """Median of the seconds that each way returns, taken in turns after a round that warms up.

    In turns, because a machine that is slow for a second is then slow for all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(num_rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    return {name: statistics.median(taken) for name, taken in seconds.items()}
