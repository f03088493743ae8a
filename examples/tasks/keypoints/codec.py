"""Objects as tokens, and back.

    token 0                       the end
    tokens 1 to C                 a class
    the next ``num_levels``       a coordinate of the input, from 0 to 1

An object is its class and y, x of each point. Axes: T tokens of a sequence, N objects, K points.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keypoints.points import POINTS

END = 0


@dataclass(frozen=True, slots=True)
class Found:
    """An object that a sequence speaks of."""

    start: int
    """Place of its first token."""
    category: int
    yx_K2: NDArray[np.float64]
    """Its points, relative to the input."""


@dataclass(frozen=True, slots=True)
class KeypointCodec:
    num_classes: int
    max_objects: int
    num_levels: int

    @property
    def tokens_per_object(self) -> int:
        return 1 + 2 * len(POINTS)

    @property
    def sequence_length(self) -> int:
        return self.max_objects * self.tokens_per_object

    @property
    def vocab_size(self) -> int:
        return 1 + self.num_classes + self.num_levels

    def encode(
        self, category_N: NDArray[np.int64], yx_NK2: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """Tokens [T] of the first ``max_objects`` objects, from left to right."""
        left_N = yx_NK2[:, POINTS.index("left"), 1]
        order = np.argsort(left_N, kind="stable")[: self.max_objects]
        level_NK2 = np.clip((yx_NK2 * self.num_levels).astype(np.int64), 0, self.num_levels - 1)
        tokens_T = np.full(self.sequence_length, END, dtype=np.int32)
        for slot, n in enumerate(order):
            start = slot * self.tokens_per_object
            tokens_T[start] = 1 + category_N[n]
            tokens_T[start + 1 : start + self.tokens_per_object] = (
                1 + self.num_classes + level_NK2[n].ravel()
            )
        return tokens_T

    def decode(self, tokens_T: NDArray[np.int32]) -> Iterator[Found]:
        """The objects before the end. One without a class, or without all its points, is none."""
        ends = np.flatnonzero(tokens_T == END)
        length = int(ends[0]) if len(ends) else len(tokens_T)
        for start in range(0, length - self.tokens_per_object + 1, self.tokens_per_object):
            category = int(tokens_T[start]) - 1
            levels = tokens_T[start + 1 : start + self.tokens_per_object] - 1 - self.num_classes
            if category < self.num_classes and levels.min() >= 0:
                yx_K2 = (levels.reshape(-1, 2) + 0.5) / self.num_levels
                yield Found(start, category, yx_K2)
