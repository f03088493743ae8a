"""The GPU of a process in its metrics. Where there is none, there is no such metric: not a 0."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from rewardtune.transport.telemetry.meter import Meter

_EVERY_SECONDS = 5.0
"""Asking the driver of a GPU takes a millisecond, a step may take ten."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    memory_bytes: int
    utilization_ratio: float | None
    """None where nobody can tell: that needs nvidia-ml-py, and a GPU that is not shared out."""


def read_gpu() -> GpuReading | None:
    """Of the GPU that this process uses; None: it uses none."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return GpuReading(memory_bytes=total - free, utilization_ratio=_utilization())


def _utilization() -> float | None:
    try:
        return torch.cuda.utilization() / 100
    except Exception:  # NVML's own errors have a type only where nvidia-ml-py is installed
        return None


class GpuReport:
    """Reports now and then, however often it is asked to."""

    def __init__(
        self,
        meter: Meter,
        *,
        read: Callable[[], GpuReading | None] = read_gpu,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter = meter
        self._read = read
        self._clock = clock
        self._due = clock()

    def report(self) -> None:
        if self._clock() < self._due:
            return
        self._due = self._clock() + _EVERY_SECONDS
        reading = self._read()
        if reading is None:
            return
        self._meter.set("gpu_memory_bytes", reading.memory_bytes)
        if reading.utilization_ratio is not None:
            self._meter.set("gpu_utilization_ratio", reading.utilization_ratio)
