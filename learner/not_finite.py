"""A run that left the numbers: nothing that is computed from here on means anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path


class NotFinite(RuntimeError):
    """A loss, gradient or update is not finite; weights and state are those before that step."""


def found_not_finite(values: Mapping[str, float]) -> str | None:
    """The first of these that is not finite, in words; None if all are."""
    for name, value in values.items():
        if not math.isfinite(value):
            return f"the {name} is not finite ({value})"
    return None


def ended_by(error: NotFinite, *, step: int, checkpoint: Path) -> NotFinite:
    """What a run ends with, once the checkpoint before the step is written."""
    return NotFinite(
        f"{error}: the run ends there; the last good checkpoint is step {step}: {checkpoint}. Go "
        "on from it with --fork and a lower learning rate, or start a run of its own"
    )
