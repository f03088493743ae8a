"""Axes: S rollouts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reward_workers.scoring.compose import compose
from reward_workers.scoring.config import RewardConfig


def composed(given: Any, **values: list[float]) -> list[float]:
    config = RewardConfig.model_validate(given)
    arrays = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
    reward: list[float] = compose(config, {"task": arrays["a"] * 0, **arrays}).reward_S.tolist()
    return reward


A = {"use": "m:a"}
B = {"use": "m:b"}


def test_a_weighted_sum() -> None:
    given = {"sum": {"a": 2, "b": -0.5}, "parts": {"a": A, "b": B}}
    assert composed(given, a=[1, 2], b=[4, 8]) == [0, 0]


def test_a_product_of_sums() -> None:
    parts = {"a": A, "b": B, "both": {"sum": {"a": 1, "b": 1}}}
    given = {"product": ["a", "both"], "parts": parts}
    assert composed(given, a=[1, 2], b=[4, 8]) == [5, 20]


def test_clipping_comes_before_saturating() -> None:
    given = {"sum": {"a": 1}, "parts": {"a": {**A, "clip": [-1, 1], "saturate": 2.0}}}
    assert composed(given, a=[-5, 0, 5]) == [-2 * math.tanh(0.5), 0, 2 * math.tanh(0.5)]


def test_a_gate_takes_the_reward_where_it_is_closed() -> None:
    parts = {"a": A, "b": {**B, "at_least": 3.0}}
    given = {"sum": {"a": 1}, "gates": ["b"], "otherwise": -9, "parts": parts}
    assert composed(given, a=[1, 2, 3], b=[2.9, 3.0, 4.0]) == [-9, 2, 3]


def test_true_passes_a_gate_and_false_does_not() -> None:
    given = {"sum": {"a": 1}, "gates": ["b"], "parts": {"a": A, "b": B}}
    assert composed(given, a=[7, 7], b=[0.0, 1.0]) == [0, 7]


def test_a_part_may_have_a_gate_of_its_own() -> None:
    parts = {"a": {**A, "gates": ["b"], "otherwise": 5}, "b": B}
    given = {"sum": {"a": 1, "b": 1}, "parts": parts}
    assert composed(given, a=[1, 1], b=[0, 1]) == [5, 2]


def test_parts_are_told_as_they_were_before_they_were_shaped() -> None:
    config = RewardConfig.model_validate(
        {"sum": {"both": 1}, "parts": {"a": {**A, "clip": [0, 1]}, "both": {"sum": {"a": 3}}}}
    )
    got = compose(config, {"a": np.array([5.0]), "task": np.array([8.0])})
    assert {name: value.tolist() for name, value in got.parts.items()} == {
        "a": [5.0],
        "both": [3.0],
        "task": [8.0],
    }


_WEIGHT = st.floats(-3, 3)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.tuples(_WEIGHT, _WEIGHT), min_size=1, max_size=5),
    weights=st.tuples(_WEIGHT, _WEIGHT),
    low=st.floats(-2, 0),
    at_least=_WEIGHT,
)
def test_a_composition_is_its_definition_one_rollout_at_a_time(
    values: list[tuple[float, float]],
    weights: tuple[float, float],
    low: float,
    at_least: float,
) -> None:
    parts = {"a": {**A, "clip": [low, 1.0]}, "b": {**B, "saturate": 0.5, "at_least": at_least}}
    config = {
        "sum": dict(zip("ab", weights, strict=True)),
        "gates": ["b"],
        "otherwise": -1,
        "parts": parts,
    }

    def slow(a: float, b: float) -> float:
        a, b = min(max(a, low), 1.0), 0.5 * math.tanh(b / 0.5)
        return weights[0] * a + weights[1] * b if b >= at_least else -1.0

    a_S, b_S = (list(column) for column in zip(*values, strict=True))
    expected_S: NDArray[np.float64] = np.array([slow(*row) for row in values])
    np.testing.assert_allclose(composed(config, a=a_S, b=b_S), expected_S, atol=1e-12)
