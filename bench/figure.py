"""One measured figure, as it is printed and written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from rewardtune.run.machine import machine

__all__ = ["EVIDENCE", "Figure", "figure", "machine"]

EVIDENCE = Path(__file__).resolve().parents[1] / "evidence"
"""Where records lie; its index says which command wrote which."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, and beside it what a peer and what the bare machine reached in the same run."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    """Who the peer is; null where nothing comparable was run."""
    peer_value: float | None = None
    ratio: float | None = None
    """How many times better than the peer, whichever way the unit points."""
    floor: float | None = None
    """The value that the bare matrix products and cache reads alone would have."""
    of_floor: float | None = None
    """Share of the floor's speed that was reached; 1 would be the floor itself."""
    machine: str = ""


def figure(
    name: str,
    seconds: float,
    *,
    amount: float | None = None,
    unit: str = "s",
    peer: str | None = None,
    peer_seconds: float | None = None,
    floor_seconds: float | None = None,
) -> Figure:
    """What took ``seconds``, as a rate if an ``amount`` of work was done in them."""

    def value(taken: float | None) -> float | None:
        return taken if taken is None or amount is None else amount / taken

    return Figure(
        name=name,
        value=seconds if amount is None else amount / seconds,
        unit=unit,
        peer=peer,
        peer_value=value(peer_seconds),
        ratio=None if peer_seconds is None else peer_seconds / seconds,
        floor=value(floor_seconds),
        of_floor=None if floor_seconds is None else floor_seconds / seconds,
        machine=machine(),
    )


def write(figures: Iterable[Figure], path: Path) -> None:
    """One JSON object per line, numbers to four digits: more would be noise."""
    lines = (json.dumps({k: _rounded(v) for k, v in asdict(f).items()}) for f in figures)
    path.write_text("".join(f"{line}\n" for line in lines))


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
