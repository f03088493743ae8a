"""What is said of several draws of scenes."""

from __future__ import annotations

from typing import Any

from studies.fresh_scenes import START, summary


def row(policy: str, seed: int, mean_ap: float) -> dict[str, Any]:
    return {"policy": policy, "scenes_seed": seed, "map": mean_ap, "ar100": 0.5, "reward": 2.0}


def test_each_gain_is_over_the_start_on_the_same_scenes() -> None:
    rows = [
        *(row(START, 1, 0.2), row(START, 2, 0.4)),
        *(row("a", 1, 0.3), row("a", 2, 0.4)),
        *(row("b", 1, 0.2), row("b", 2, 0.44)),
    ]
    first = summary(rows).splitlines()[0]
    assert first == ("map: 0.3000 -> 0.3350, gains of single draws +0.0% to +50.0%, mean +15.0%")
