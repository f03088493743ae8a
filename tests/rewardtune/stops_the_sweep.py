"""A reward for boxes that stops, once, the sweep that its run belongs to; and one that fails.

STOPS_THE_SWEEP names a file that says that it was done.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rewardtune.datasets.example import Example

_NUM_CALLS = 12
_PATIENCE_SECONDS = 60
_calls = 0


def many_boxes(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    global _calls
    _calls += 1
    mark = Path(os.environ.get("STOPS_THE_SWEEP", os.devnull))
    if _calls == _NUM_CALLS and not mark.exists():
        mark.touch()
        _stop_the_sweep()
    return [float(len(boxes)) for boxes in predictions]


def broken(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    raise LookupError(f"image {example.image_id} is beyond me")


def _stop_the_sweep() -> None:
    """Signal it, and go on once it has asked this run to stop."""
    run_hears = signal.getsignal(signal.SIGTERM)
    is_asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        is_asked = True
        assert callable(run_hears)
        run_hears(number, frame)

    signal.signal(signal.SIGTERM, hear)
    os.kill(os.getppid(), signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_asked and time.monotonic() < deadline:
        time.sleep(0.01)
