"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import torch


@cache
def machine() -> str:
    """CPU, cores, threads and torch: what a figure must be read with. No date, no host name."""
    cpu = _cpu_fields()
    parts = [cpu.get("model name", platform.processor() or platform.machine())]
    if "cpu family" in cpu:
        parts.append(f"family {cpu['cpu family']} model {cpu['model']}")
    parts += [
        torch.backends.cpu.get_cpu_capability(),
        f"{len(os.sched_getaffinity(0))} cores",
        f"{torch.get_num_threads()} threads",
        f"torch {torch.__version__}",
    ]
    return ", ".join(parts)


def _cpu_fields() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
