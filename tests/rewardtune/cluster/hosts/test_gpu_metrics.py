"""What is said of a GPU, by a reader that is asked instead of one."""

from __future__ import annotations

import pytest
import torch

from rewardtune.cluster.hosts.gpu_metrics import GpuReading, GpuReport, read_gpu
from rewardtune.transport.telemetry.meter import Telemetry

_NAMES = ("rewardtune_gpu_memory_bytes", "rewardtune_gpu_utilization_ratio")


class _Gpu:
    def __init__(self, reading: GpuReading | None) -> None:
        self.reading = reading
        self.num_reads = 0
        self.now = 0.0

    def read(self) -> GpuReading | None:
        self.num_reads += 1
        return self.reading

    def clock(self) -> float:
        return self.now


def values(meter: Telemetry) -> dict[str, float]:
    lines = [line.split() for line in meter.exposition().decode().splitlines()]
    return {name: float(value) for name, value, *_ in lines if name in _NAMES}


def reporting(gpu: _Gpu) -> tuple[Telemetry, GpuReport]:
    meter = Telemetry("sampler")
    return meter, GpuReport(meter, read=gpu.read, clock=gpu.clock)


def test_memory_and_utilization_are_reported_and_follow_every_few_seconds() -> None:
    gpu = _Gpu(GpuReading(memory_bytes=2_000, utilization_ratio=0.75))
    meter, report = reporting(gpu)
    report.report()
    assert values(meter) == dict(zip(_NAMES, (2_000.0, 0.75), strict=True))
    gpu.reading = GpuReading(memory_bytes=3_000, utilization_ratio=0.5)
    gpu.now = 4.9
    report.report()
    assert gpu.num_reads == 1
    gpu.now = 5.0
    report.report()
    assert values(meter) == dict(zip(_NAMES, (3_000.0, 0.5), strict=True))


def test_without_a_gpu_there_is_no_figure() -> None:
    meter, report = reporting(_Gpu(None))
    report.report()
    assert values(meter) == {}


def test_memory_is_told_where_utilization_cannot_be() -> None:
    meter, report = reporting(_Gpu(GpuReading(memory_bytes=7, utilization_ratio=None)))
    report.report()
    assert values(meter) == {_NAMES[0]: 7.0}


def test_torch_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed() -> int:
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 100))
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 25)
    assert read_gpu() == GpuReading(memory_bytes=70, utilization_ratio=0.25)
    monkeypatch.setattr(torch.cuda, "utilization", not_installed)
    assert read_gpu() == GpuReading(memory_bytes=70, utilization_ratio=None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert read_gpu() is None
