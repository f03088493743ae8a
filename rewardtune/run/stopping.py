"""SIGTERM and SIGINT as a flag that the loop polls between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Set by a signal; never cleared."""

    def __init__(self) -> None:
        self._is_set = False

    def __bool__(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Finish the step, write a checkpoint, then stop: the caller polls the flag.

    A second SIGINT interrupts at once. Outside the main thread, where Python delivers no
    signals, the flag stays unset.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if flag and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set()

    earlier = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
