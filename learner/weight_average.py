"""The average of the weights over the last steps: what is measured and kept, while tuning goes on.

A step of REINFORCE is mostly noise around where the steps lead. A falling learning rate averages
it out by moving less; an average of the weights does so while they go on moving.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Exponential moving average of named parameters, which stay as they are outside ``applied``.

    The decay of update n is min(decay, n / (n + 9)): the first averages reach back over about the
    last ninth of the updates instead of being held at the start.

    Source: Polyak & Juditsky 1992; the early decay is that of TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``.
    """

    def __init__(self, parameters: Mapping[str, Tensor], *, decay: float) -> None:
        """Start as the parameters are.

        Args:
            parameters: live tensors of any dtype and device; not copied, but for their values.
            decay: in (0, 1); 1 / (1 - decay) updates count.
        """
        self._parameters = {name: parameter.detach() for name, parameter in parameters.items()}
        self._averages = {name: tensor.clone() for name, tensor in self._parameters.items()}
        self._decay = decay

    def update(self, num_updates: int) -> None:
        """Take the parameters in, after update ``num_updates``, counted from 1."""
        decay = min(self._decay, num_updates / (num_updates + 9))
        torch._foreach_lerp_(
            list(self._averages.values()), list(self._parameters.values()), 1 - decay
        )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the parameters have the averaged values; after it their own, bit for bit."""
        own = {name: tensor.clone() for name, tensor in self._parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(own)

    def state(self) -> dict[str, Tensor]:
        """The averages by name; live tensors."""
        return self._averages

    def restore(self, averages: Mapping[str, Tensor]) -> None:
        """Continue where ``state`` was taken, bit for bit."""
        for name, average in self._averages.items():
            average.copy_(averages[name])

    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._parameters.items():
            tensor.copy_(values[name])
