"""That the loop without work runs, and counts groups."""

from __future__ import annotations

from bench.machinery import BATCH, machinery_figures


def test_a_loop_without_work_is_measured_beside_its_limit() -> None:
    figures = {f.name: f for f in machinery_figures(num_steps=1, num_rounds=1)}
    assert list(figures) == ["machinery.noop.seconds", "machinery.noop.core_seconds"]
    for found in figures.values():
        assert 0 < found.value < 1 / BATCH * 60
        assert found.floor == 1e-3
