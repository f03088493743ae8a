"""Weights between processes: bytes with dtype and shape beside, for no numpy type fits bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One parameter as contiguous bytes in the machine's (little-endian) order."""

    data_B: NDArray[np.uint8]
    dtype: str
    """As PyTorch names it, without its prefix: float32, bfloat16."""
    shape: tuple[int, ...]


PackedWeights = Mapping[str, PackedTensor]
"""Parameters by name."""
