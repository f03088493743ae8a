"""Adafactor against big_vision's numbers, and against its definition in plain numpy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from learner import adafactor
from learner.config import AdafactorConfig
from learner.optimizer import Optimizer

FIXTURE = Path(__file__).parents[1] / "fixtures" / "adafactor.npz"
Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def fixture() -> dict[str, npt.NDArray[np.float32]]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def under(
    arrays: Mapping[str, npt.NDArray[np.float32]], prefix: str
) -> dict[str, npt.NDArray[np.float32]]:
    """Arrays below a prefix, by their torch-style dotted name."""
    return {
        name.removeprefix(f"{prefix}/").replace("/", "."): array
        for name, array in arrays.items()
        if name.startswith(f"{prefix}/")
    }


def config_of(arrays: Mapping[str, npt.NDArray[np.float32]], name: str) -> AdafactorConfig:
    cfg = under(arrays, f"{name}/cfg")
    patterns = zip(cfg.get("lr_mult_regex", ()), cfg.get("lr_mult_value", ()), strict=True)
    return AdafactorConfig(
        learning_rate=float(cfg["lr"]),
        weight_decay=float(cfg["wd"]),
        grad_clip_norm=float(cfg["grad_clip_norm"]) or None,
        clipping_threshold=float(cfg["clipping_threshold"]) or None,
        beta2_cap=float(cfg["beta2_cap"]),
        momentum=float(cfg["momentum"]),
        momentum_dtype="bfloat16" if cfg["momentum_bf16"] else "float32",
        min_dim_size_to_factor=int(cfg["min_dim_size_to_factor"]),
        learning_rate_multipliers=tuple((str(p), float(value)) for p, value in patterns),
    )


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("plain_f32mom", 1e-6), ("plain_bf16mom", 1.5e-3), ("full_f32mom", 1e-6)],
)
def test_ten_updates_equal_those_of_big_vision(
    fixture: dict[str, npt.NDArray[np.float32]], name: str, tolerance: float
) -> None:
    init = under(fixture, "init")
    parameters = {n: nn.Parameter(torch.from_numpy(p.copy())) for n, p in init.items()}
    optimizer = Optimizer(parameters, config_of(fixture, name))
    compared = 0
    for step in range(10):
        for n, gradient in under(fixture, f"grads/step{step:02d}").items():
            parameters[n].grad = torch.from_numpy(gradient.copy())
        optimizer.step(float(fixture[f"{name}/schedule"][step]))
        for n, expected in under(fixture, f"{name}/params_after_step{step:02d}").items():
            got = parameters[n].detach().numpy()
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=n)
            compared += 1
    assert compared == 4 * len(init)


def test_statistics_are_factored_as_in_big_vision(
    fixture: dict[str, npt.NDArray[np.float32]],
) -> None:
    parameters = {
        n: nn.Parameter(torch.from_numpy(p.copy())) for n, p in under(fixture, "init").items()
    }
    optimizer = Optimizer(parameters, config_of(fixture, "plain_f32mom"))
    for step in range(10):
        for n, gradient in under(fixture, f"grads/step{step:02d}").items():
            parameters[n].grad = torch.from_numpy(gradient.copy())
        optimizer.step(1.0)
    expected = {
        f"{ours}/{n}": array
        for ours, theirs in [
            ("row", "state_v_row"),
            ("column", "state_v_col"),
            ("second_moment", "state_v"),
            ("momentum", "state_ema"),
        ]
        for n, array in under(fixture, f"plain_f32mom/{theirs}").items()
    }
    state = optimizer.state_dict()
    assert state.keys() == expected.keys() | {"step"}
    for key, array in expected.items():
        got = state[key].numpy().reshape(array.shape)
        np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-7, err_msg=key)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((768, 12, 64), (0, 2)),  # attention query, key, value
        ((12, 64, 768), (2, 1)),  # attention out
        ((33, 33), (1, 0)),  # a tie: the later axis counts as larger
        ((1, 196, 768), (2, 1)),  # position embedding
        ((16, 16, 3, 768), None),  # patch convolution: 16 < 32
        ((12, 64), None),  # attention bias
        ((31, 64), None),
        ((4096,), None),
        ((), None),
    ],
)
def test_the_two_largest_axes_are_factored_if_long_enough(
    shape: tuple[int, ...], axes: tuple[int, int] | None
) -> None:
    assert adafactor.factored_axes(shape, min_dim_size_to_factor=32) == axes


def test_second_moment_decay_has_the_values_of_the_spec() -> None:
    decays = [adafactor.second_moment_decay(t, cap=0.999) for t in range(5)]
    assert decays == pytest.approx([0, 0.426, 0.585, 0.670, 0.724], abs=5e-4)
    assert adafactor.second_moment_decay(41, cap=0.95) < 0.95
    assert adafactor.second_moment_decay(42, cap=0.95) == 0.95
    assert adafactor.second_moment_decay(5622, cap=0.999) < 0.999
    assert adafactor.second_moment_decay(5623, cap=0.999) == 0.999


def slow_directions(
    gradients: Sequence[Array],
    *,
    beta2_cap: float,
    momentum: float,
    min_dim: int,
    threshold: float | None,
) -> list[Array]:
    """Spec 11.1, steps 2 to 4, for the gradients of one parameter, in float64."""
    shape = gradients[0].shape
    second, largest = 0, 0
    is_factored = False
    if len(shape) >= 2:
        second, largest = np.argsort(shape, kind="stable")[-2:]
        is_factored = shape[second] >= min_dim
    row = column = whole = direction = np.zeros(())
    directions = []
    for t, gradient in enumerate(gradients):
        beta2 = min(beta2_cap, 1 - (t + 1) ** -0.8)
        squared = gradient**2 + 1e-30
        if is_factored:
            row = beta2 * row + (1 - beta2) * squared.mean(axis=largest, keepdims=True)
            column = beta2 * column + (1 - beta2) * squared.mean(axis=second, keepdims=True)
            estimate = row * column / row.mean(axis=second, keepdims=True)
        else:
            whole = beta2 * whole + (1 - beta2) * squared
            estimate = whole
        update = gradient / np.sqrt(estimate)
        if threshold is not None:
            update = update / max(1.0, np.sqrt((update**2).mean()) / threshold)
        direction = momentum * direction + (1 - momentum) * update
        directions.append(direction)
    return directions


@settings(max_examples=60)
@given(
    shapes=st.lists(
        st.lists(st.sampled_from([1, 2, 3, 5, 6, 7]), max_size=4).map(tuple),
        min_size=1,
        max_size=4,
    ),
    min_dim=st.sampled_from([1, 2, 4, 6]),
    beta2_cap=st.sampled_from([0.0, 0.6, 0.999]),
    momentum=st.sampled_from([0.0, 0.9]),
    threshold=st.sampled_from([None, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_directions_equal_their_definition_computed_the_slow_way(
    shapes: list[tuple[int, ...]],
    min_dim: int,
    beta2_cap: float,
    momentum: float,
    threshold: float | None,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    gradients = [[rng.normal(size=shape) for _ in range(4)] for shape in shapes]
    gradients[0][2] = np.zeros(shapes[0])
    expected = [
        slow_directions(
            history, beta2_cap=beta2_cap, momentum=momentum, min_dim=min_dim, threshold=threshold
        )
        for history in gradients
    ]
    state = adafactor.initial_state(
        {str(i): torch.zeros(shape) for i, shape in enumerate(shapes)},
        min_dim_size_to_factor=min_dim,
        momentum_dtype=torch.float32,
    )
    for step in range(4):
        got = adafactor.advance(
            state,
            {str(i): as_float32(history[step]) for i, history in enumerate(gradients)},
            step=step,
            beta2_cap=beta2_cap,
            momentum=momentum,
            min_dim_size_to_factor=min_dim,
            clipping_threshold=threshold,
        )
        for direction, wanted in zip(got, expected, strict=True):
            torch.testing.assert_close(direction, as_float32(wanted[step]), rtol=1e-4, atol=1e-5)


def as_float32(array: Array) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)


def test_a_gradient_that_was_always_zero_moves_nothing() -> None:
    parameters = {"a.kernel": nn.Parameter(torch.ones(40, 40)), "b": nn.Parameter(torch.ones(3))}
    optimizer = Optimizer(parameters, AdafactorConfig(learning_rate=1.0))
    for _ in range(3):
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(1.0)
    assert all((parameter == 1).all() for parameter in parameters.values())


def test_bfloat16_momentum_is_rounded_only_where_it_is_stored() -> None:
    parameter = nn.Parameter(torch.zeros(5))
    optimizer = Optimizer({"p": parameter}, AdafactorConfig(learning_rate=1.0, weight_decay=0.0))
    parameter.grad = torch.tensor([3.0, -1.0, 2.0, 5.0, -7.0])
    optimizer.step(1.0)
    # The first scaled gradient is its sign; a tenth of it is used as float32 has it.
    torch.testing.assert_close(
        parameter.detach(), torch.tensor([-0.1, 0.1, -0.1, -0.1, 0.1]), rtol=1e-6, atol=0
    )
    assert optimizer.state_dict()["momentum/p"].dtype == torch.bfloat16
