from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.sweep.figures import Estimate, difference, estimate

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_an_estimate_is_mean_and_standard_error_of_the_mean(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert found.standard_error == pytest.approx(error, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(VALUES, VALUES)
def test_errors_of_a_difference_add_in_quadrature_and_its_sign_turns(
    one: list[float], other: list[float]
) -> None:
    found, turned = difference(one, other), difference(other, one)
    assert found.mean == pytest.approx(statistics.fmean(one) - statistics.fmean(other), abs=1e-9)
    variance = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    assert found.standard_error == pytest.approx(math.sqrt(variance), abs=1e-9)
    assert turned == Estimate(-found.mean, found.standard_error)
    assert turned.is_resolved == found.is_resolved


def test_two_standard_errors_are_where_a_difference_is_resolved() -> None:
    assert Estimate(2.0, 1.0).is_resolved and Estimate(-2.0, 1.0).is_resolved
    assert not Estimate(1.99, 1.0).is_resolved
    assert Estimate(0.1, 0.0).is_resolved and not Estimate(0.0, 0.0).is_resolved


def test_one_seed_resolves_nothing() -> None:
    found = difference([1.0], [5.0, 5.1])
    assert found.mean == pytest.approx(-4.05) and math.isnan(found.standard_error)
    assert not found.is_resolved


def test_a_metric_that_is_not_a_number_resolves_nothing() -> None:
    assert not difference([math.nan, 1.0], [5.0, 5.1]).is_resolved


def test_an_estimate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])
