"""That the benchmark of weight stores runs, at a toy size."""

from __future__ import annotations

import pytest

from bench.weights import PEER, store_figures


def test_every_store_is_measured_beside_a_copy(ray_session: None) -> None:
    figures = {f.name: f for f in store_figures("toy", num_bytes=5_000_000, num_rounds=1)}
    stores = [f"weights.{kind}" for kind in ("file", "ray")]
    steps = ("first_publish", "publish", "load")
    expected = [f"{store}.{step}.toy" for store in stores for step in steps]
    assert list(figures) == ["weights.pack.toy", *expected]
    for found in figures.values():
        assert found.of_floor == pytest.approx((found.floor or 0) / found.value)
    assert [f.name for f in figures.values() if f.peer == PEER] == [
        "weights.ray.publish.toy",
        "weights.ray.load.toy",
    ]
