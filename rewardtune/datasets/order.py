"""Which example stands at which ordinal of a run, and through which view it is seen.

A pure function of the run's seed: any process can ask for any ordinal, in any order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.view import ViewConfig
from rewardtune.records import View

# The counter's last word keeps the two uses of one seed apart: (seed, epoch 7) and
# (seed, ordinal 7) are the same Philox key. No stream is long enough to carry into it.
_SHUFFLE_STREAM = 0
_VIEW_STREAM = 1

_KEPT_EPOCHS = 2
"""A batch may straddle two epochs; a permutation of 118k images takes 10 ms to make."""


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """What the run does at one ordinal."""

    epoch: int
    example: int
    view: View


class DataOrder:
    """Every epoch visits every example once, shuffled anew; every ordinal has its own view."""

    def __init__(self, num_examples: int, seed: int, views: ViewConfig) -> None:
        if num_examples < 1:
            raise ValueError(f"a data order needs at least one example, got {num_examples}")
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in [0, 2**64), got {seed}")
        self._num_examples = num_examples
        self._seed = seed
        self._views = views
        self._permutations: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def entry(self, ordinal: int) -> OrderEntry:
        """The example and view at ``ordinal``.

        Raises:
            ValueError: ``ordinal`` is negative.
        """
        if ordinal < 0:
            raise ValueError(f"ordinals start at 0, got {ordinal}")
        epoch, place = divmod(ordinal, self._num_examples)
        rng = np.random.Generator(_philox(self._seed, ordinal, stream=_VIEW_STREAM))
        return OrderEntry(
            epoch=epoch,
            example=int(self._permutation(epoch)[place]),
            view=self._views.sample(rng),
        )

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        with self._lock:
            if epoch in self._permutations:
                self._permutations.move_to_end(epoch)
                return self._permutations[epoch]
            # Sorting raw draws instead of Generator.permutation: numpy keeps the raw stream
            # of a bit generator fixed between its versions, but not what Generator makes of it.
            raw = _philox(self._seed, epoch, stream=_SHUFFLE_STREAM).random_raw(self._num_examples)
            permutation = np.argsort(raw, kind="stable")
            self._permutations[epoch] = permutation
            if len(self._permutations) > _KEPT_EPOCHS:
                self._permutations.popitem(last=False)
            return permutation


def _philox(seed: int, number: int, *, stream: int) -> np.random.Philox:
    return np.random.Philox(
        key=np.array([seed, number], dtype=np.uint64),
        counter=np.array([0, 0, 0, stream], dtype=np.uint64),
    )
