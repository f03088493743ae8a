"""The running average of the weights against its formula, and that nothing else feels it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from learner.weight_average import WeightAverage


def weights_after(seed: int, num_updates: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 2, generator=generator) for _ in range(num_updates + 1)]


@given(decay=st.floats(0.01, 0.999), num_updates=st.integers(0, 40), seed=st.integers(0, 2**31 - 1))
def test_it_is_the_weighted_sum_of_all_weights_there_were(
    decay: float, num_updates: int, seed: int
) -> None:
    weights = weights_after(seed, num_updates)
    parameter = nn.Parameter(weights[0].clone())
    average = WeightAverage({"w": parameter}, decay=decay)
    for n in range(1, num_updates + 1):
        with torch.no_grad():
            parameter.copy_(weights[n])
        average.update(n)
    decays = [min(decay, n / (n + 9)) for n in range(1, num_updates + 1)]
    share = 1.0
    expected = torch.zeros(3, 2, dtype=torch.float64)
    for n in range(num_updates, 0, -1):
        expected += share * (1 - decays[n - 1]) * weights[n].double()
        share *= decays[n - 1]
    expected += share * weights[0].double()
    assert torch.allclose(average.state()["w"].double(), expected, atol=1e-5)
    with average.applied():
        assert torch.equal(parameter, average.state()["w"])
    assert torch.equal(parameter, weights[num_updates])


def test_the_weights_come_back_after_an_error() -> None:
    first, last = weights_after(0, 1)
    parameter = nn.Parameter(first.clone())
    average = WeightAverage({"w": parameter}, decay=0.9)
    with torch.no_grad():
        parameter.copy_(last)
    average.update(1)
    with average.applied():
        assert not torch.equal(parameter, last)
    with pytest.raises(OSError, match="disk"), average.applied():
        raise OSError("disk full")
    assert torch.equal(parameter, last)


def test_it_goes_on_from_its_state() -> None:
    weights = weights_after(1, 4)
    parameter = nn.Parameter(weights[0].clone())
    whole = WeightAverage({"w": parameter}, decay=0.9)
    resumed = WeightAverage({"w": parameter}, decay=0.9)
    for n in range(1, 5):
        with torch.no_grad():
            parameter.copy_(weights[n])
        whole.update(n)
        if n == 2:
            resumed.restore({"w": whole.state()["w"].clone()})
        if n > 2:
            resumed.update(n)
    assert torch.equal(whole.state()["w"], resumed.state()["w"])
