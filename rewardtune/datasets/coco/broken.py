"""What in COCO's files cannot be used, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_NUM_LISTED = 5
"""Broken things that an error message spells out; the report lists all of them."""


class ConversionError(ValueError):
    """The input is not COCO's format, or holds broken things that nobody said to skip."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing in the input that cannot be used as it stands."""

    file: Path
    """The JSON file or picture at fault."""
    kind: str
    """image, annotation, panoptic map or caption."""
    id: int | None
    problem: str

    def __str__(self) -> str:
        name = "?" if self.id is None else self.id
        return f"{self.file}: {self.kind} {name}: {self.problem}"


class BrokenLog:
    """Broken things found so far; either they are skipped, or they stop the conversion."""

    def __init__(self, *, skip: bool) -> None:
        self.broken: list[Broken] = []
        self._skip = skip

    def add(self, broken: Broken) -> None:
        self.broken.append(broken)

    def stop_if_broken(self) -> None:
        if not self.broken or self._skip:
            return
        listed = "\n".join(f"  {broken}" for broken in self.broken[:_NUM_LISTED])
        more = len(self.broken) - _NUM_LISTED
        raise ConversionError(
            f"{len(self.broken)} broken in the input:\n{listed}\n"
            + (f"  ... and {more} more\n" if more > 0 else "")
            + "mend them, or ask to skip what is broken"
        )
