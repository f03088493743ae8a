"""A group's rollouts, decoded once for all who read them.

Axes: S rollouts, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Prediction = TypeVar("Prediction")
Seen = TypeVar("Seen")


@dataclass(frozen=True, eq=False)
class Decoded(Sequence[Prediction], Generic[Prediction, Seen]):
    """What a task's ``decode`` may return: a sequence of one prediction per rollout.

    A reward is computed in the frame that the policy sees; a custom reward and a results file want
    the example's own image. So what was decoded is kept as it is, and carried into the image for
    those who ask.
    """

    tokens_ST: NDArray[np.int32]
    seen: Seen
    """All rollouts as the task decoded them, in the frame that the policy sees."""
    in_image: Callable[[int], Prediction]
    """A rollout's prediction in the frame of the example's own image, by its place."""

    def __len__(self) -> int:
        return len(self.tokens_ST)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...

    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...

    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        places = range(len(self))[index]  # raises IndexError beyond the last
        if isinstance(places, range):
            return [self.in_image(place) for place in places]
        return self.in_image(places)
