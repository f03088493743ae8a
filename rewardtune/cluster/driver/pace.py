"""The pace of a run: how fast its last steps were and where their time went."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

NUM_RECENT_STEPS = 20
"""A single step jumps; what was an hour ago says nothing about now."""
_PHASE = "seconds_"


@dataclass(frozen=True, slots=True)
class Pace:
    """None and empty before the first step."""

    steps_per_second: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    """Mean seconds per step, by phase."""


def pace(records: Collection[Mapping[str, float]]) -> Pace:
    """Of steps as the log tells them: ``seconds``, and ``seconds_*`` that add up to it."""
    total = sum(record["seconds"] for record in records)
    if not total:
        return Pace()
    names = sorted({name for record in records for name in record if name.startswith(_PHASE)})
    return Pace(
        steps_per_second=len(records) / total,
        phases={
            name.removeprefix(_PHASE): sum(r.get(name, 0.0) for r in records) / len(records)
            for name in names
        },
    )
