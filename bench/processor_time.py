"""Timing by processor time: what a way costs, whatever else the machine does meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable


def processor_timed(way: Callable[[], object]) -> Callable[[], float]:
    """The same, returning how many seconds of processor time it took, all threads together."""

    def measure() -> float:
        start = time.process_time()
        way()
        return time.process_time() - start

    return measure
