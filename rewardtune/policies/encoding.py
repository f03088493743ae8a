"""Encoding images apart from drawing their tokens, by the clock.

Axes: G groups (images), H height, W width, C colours, P patches, D width of a patch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Encoded:
    context_GPD: Tensor
    seconds: float


def encode_timed(encode: Callable[[Tensor], Tensor], images_GHWC: Tensor) -> Encoded:
    """What ``encode`` makes of the images, and how long it took; waits for a GPU."""
    started = time.perf_counter()
    context_GPD = encode(images_GHWC)
    if context_GPD.is_cuda:
        torch.cuda.synchronize()  # else the clock would measure the launch alone
    return Encoded(context_GPD, time.perf_counter() - started)
