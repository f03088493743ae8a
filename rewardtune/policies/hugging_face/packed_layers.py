"""A module's dense layers with their weights packed, for as long as it draws.

Axes: N rows, D features in, X features out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from rewardtune.layers.prepared import PreparedLinear


@contextmanager
def packed_layers(module: nn.Module, *, num_rows: int) -> Iterator[None]:
    """Compute dense layers that see ``num_rows`` rows by ``PreparedLinear``, others as they are.

    Weights are packed when a layer is first used and forgotten at the end: they may change
    before the next draw. No gradient.
    """
    layers = [each for each in module.modules() if isinstance(each, nn.Linear | Conv1D)]
    for layer in layers:
        layer.forward = _PackedLayer(layer, num_rows)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # back to the class's own


class _PackedLayer:
    def __init__(self, layer: nn.Linear | Conv1D, num_rows: int) -> None:
        self._plain = layer.forward
        self._layer = layer
        self._num_rows = num_rows
        self._prepared: PreparedLinear | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.numel() != self._num_rows * x.shape[-1]:
            plain: Tensor = self._plain(x)
            return plain
        if self._prepared is None:
            weight = self._layer.weight
            self._prepared = PreparedLinear(
                # Conv1D has its weights [D, X], Linear [X, D].
                weight if isinstance(self._layer, Conv1D) else weight.t(),
                self._layer.bias,
                dtype=weight.dtype,
                num_rows=self._num_rows,
            )
        result_NX = self._prepared.apply(x.reshape(self._num_rows, -1))
        return result_NX.view(*x.shape[:-1], -1)
