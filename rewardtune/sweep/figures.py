"""What seeds say of a row, and of the difference between two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_STANDARD_ERRORS = 2.0
"""From which on a difference counts as resolved."""


@dataclass(frozen=True, slots=True)
class Estimate:
    mean: float
    standard_error: float
    """NaN where there are fewer than two values."""

    @property
    def is_resolved(self) -> bool:
        """Whether it is told from zero; never without a standard error."""
        is_far = abs(self.mean) >= NUM_STANDARD_ERRORS * self.standard_error
        return self.mean != 0 and is_far


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values and its standard error.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("an estimate needs at least one value, got none")
    count, mean = len(values), math.fsum(values) / len(values)
    if count < 2:
        return Estimate(mean, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return Estimate(mean, math.sqrt(variance / count))


def difference(one: Sequence[float], other: Sequence[float]) -> Estimate:
    """Of the means of ``one`` and ``other``; their spreads need not be equal (Welch 1947).

    Runs of one seed see the same images, but they are taken as independent: with a handful of
    seeds the spread of paired differences is itself hardly known.

    Raises:
        ValueError: one of them is empty.
    """
    first, second = estimate(one), estimate(other)
    error = math.hypot(first.standard_error, second.standard_error)
    return Estimate(first.mean - second.mean, error)
