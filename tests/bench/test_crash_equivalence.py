"""The check can fail: what it calls equal is equal, and nothing else."""

from __future__ import annotations

from bench.crash_equivalence import verdict

STRANGERS = {"initial": "i", "other seed": "o"}


def test_one_digest_per_depth_that_nobody_else_has_is_right() -> None:
    assert (
        verdict({"depth0": {"a": "x", "b": "x"}, "depth1": {"a": "y", "b": "y"}}, STRANGERS) == []
    )


def test_a_way_that_ended_elsewhere_is_found() -> None:
    (problem,) = verdict({"depth0": {"a": "x", "c": "z"}, "depth1": {"a": "y"}}, STRANGERS)
    assert "depth0" in problem and "z" in problem


def test_depths_must_differ() -> None:
    (problem,) = verdict({"depth0": {"a": "x"}, "depth1": {"a": "x"}}, STRANGERS)
    assert "two depths" in problem


def test_a_run_that_learned_nothing_or_ignored_its_seed_is_found() -> None:
    (nothing,) = verdict({"depth0": {"a": "i"}, "depth1": {"a": "y"}}, STRANGERS)
    (ignored,) = verdict({"depth0": {"a": "x"}, "depth1": {"a": "o"}}, STRANGERS)
    assert "initial" in nothing
    assert "other seed" in ignored
