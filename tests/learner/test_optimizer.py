import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from learner.config import AdafactorConfig, AdamWConfig, OptimizerConfig
from learner.optimizer import Optimizer, global_grad_norm

SHAPES = {
    "encoder.attn.query.kernel": (40, 2, 32),
    "encoder.norm.scale": (40,),
    "decoder.dense.kernel": (40, 36),
    "decoder.dense.bias": (36,),
    "decoder.embedding": (50, 40),
}


def make_parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in SHAPES.items()}


def set_gradients(parameters: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


CONFIGS: list[AdafactorConfig | AdamWConfig] = [
    AdafactorConfig(learning_rate=1e-2, weight_decay=1e-3, grad_clip_norm=3.0),
    AdafactorConfig(learning_rate=1e-2, momentum_dtype="float32", clipping_threshold=1.0),
    AdamWConfig(learning_rate=1e-2, weight_decay=1e-3),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_resumed_optimizer_continues_with_the_same_bits(
    config: AdafactorConfig | AdamWConfig,
) -> None:
    straight = make_parameters()
    optimizer = Optimizer(straight, config)
    for seed in range(6):
        set_gradients(straight, seed)
        optimizer.step(0.7)

    first = make_parameters()
    stopped = Optimizer(first, config)
    for seed in range(3):
        set_gradients(first, seed)
        stopped.step(0.7)
    saved = {name: tensor.clone() for name, tensor in stopped.state_dict().items()}
    second = {name: nn.Parameter(value) for name, value in values(first).items()}
    resumed = Optimizer(second, config)
    resumed.load_state_dict(saved)
    assert resumed.num_steps == 3
    for seed in range(3, 6):
        set_gradients(second, seed)
        resumed.step(0.7)

    assert all(torch.equal(straight[name], second[name]) for name in SHAPES)
    state, expected = resumed.state_dict(), optimizer.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_order_in_which_parameters_come_does_not_move_a_bit(
    config: AdafactorConfig | AdamWConfig,
) -> None:
    results = []
    for names in itertools.islice(itertools.permutations(SHAPES), 0, 120, 37):
        parameters = make_parameters()
        optimizer = Optimizer({name: parameters[name] for name in names}, config)
        for seed in range(2):
            set_gradients(parameters, seed)
            report = optimizer.step(1.0)
        results.append((values(parameters), report))
    for got, report in results[1:]:
        assert report == results[0][1]
        assert all(torch.equal(got[name], results[0][0][name]) for name in SHAPES)


@settings(max_examples=30)
@given(
    learning_rate=st.floats(1e-5, 0.1),
    weight_decay=st.floats(0, 1),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999)),
    multipliers=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
)
@pytest.mark.slow
def test_adamw_equals_that_of_torch_whose_decay_is_scaled_by_the_learning_rate(
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    multipliers: list[float],
    seed: int,
) -> None:
    ours, theirs = make_parameters(seed), make_parameters(seed)
    optimizer = Optimizer(
        ours,
        AdamWConfig(
            learning_rate=learning_rate,
            weight_decay=learning_rate * weight_decay,
            weight_decay_multipliers=((".*", 1.0),),
            beta1=betas[0],
            beta2=betas[1],
        ),
    )
    reference = torch.optim.AdamW(
        theirs.values(), lr=learning_rate, betas=betas, weight_decay=weight_decay
    )
    for step, multiplier in enumerate(multipliers):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        reference.param_groups[0]["lr"] = learning_rate * multiplier
        reference.step()
        optimizer.step(multiplier)
    for name in SHAPES:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_weight_decay_is_scaled_by_the_schedule_and_not_by_the_learning_rate() -> None:
    parameters = make_parameters()
    before = values(parameters)
    config = AdafactorConfig(
        learning_rate=1e-30,
        weight_decay=0.1,
        weight_decay_multipliers=(("encoder/.*/kernel", 0.5), (".*/kernel", 1.0)),
        learning_rate_multipliers=(("encoder/.*", 0.1),),
    )
    set_gradients(parameters, 0)
    Optimizer(parameters, config).step(0.5)
    share = {"encoder.attn.query.kernel": 0.025, "decoder.dense.kernel": 0.05}
    for name, value in before.items():
        torch.testing.assert_close(parameters[name].detach(), value * (1 - share.get(name, 0)))


def test_small_weight_decay_is_not_rounded_away() -> None:
    parameter = nn.Parameter(torch.ones(1000))
    config = AdamWConfig(
        learning_rate=1e-6, weight_decay=5e-8, weight_decay_multipliers=((".*", 1.0),)
    )
    optimizer = Optimizer({"p": parameter}, config)
    for _ in range(100):
        parameter.grad = torch.ones(1000)
        optimizer.step(1.0)
    moved = 1 - parameter.detach().double().mean().item()
    assert moved == pytest.approx(100 * (1e-6 + 5e-8), rel=0.03)


@pytest.mark.parametrize("kind", ["adafactor", "adamw"])
def test_the_first_matching_learning_rate_multiplier_counts(kind: str) -> None:
    multipliers = [["decoder/dense/.*", 0.25], ["decoder/.*", 0.5]]
    config: AdafactorConfig | AdamWConfig = TypeAdapter(OptimizerConfig).validate_python(
        {"kind": kind, "learning_rate": 0.01, "learning_rate_multipliers": multipliers}
    )
    plain = config.model_copy(update={"learning_rate_multipliers": ()})
    moved = []
    for each in (config, plain):
        parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
        set_gradients(parameters, 0)
        Optimizer(parameters, each).step(1.0)
        moved.append(values(parameters))
    factors = {"decoder.dense.kernel": 0.25, "decoder.dense.bias": 0.25, "decoder.embedding": 0.5}
    for name in SHAPES:
        torch.testing.assert_close(moved[0][name], factors.get(name, 1.0) * moved[1][name])


def test_frozen_parameters_stay_and_take_no_part_in_the_norm() -> None:
    parameters = make_parameters()
    before = values(parameters)
    config = AdamWConfig(
        learning_rate=0.1, weight_decay=0.1, frozen=("encoder/.*",), grad_clip_norm=1.0
    )
    optimizer = Optimizer(parameters, config)
    set_gradients(parameters, 0)
    trained = [name for name in SHAPES if name.startswith("decoder")]
    gradients = [p.grad for name, p in parameters.items() if name in trained]
    expected = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
    assert optimizer.step(1.0).grad_norm == pytest.approx(expected, rel=1e-5)
    assert [name for name in SHAPES if not torch.equal(parameters[name], before[name])] == trained
    assert optimizer.frozen_names == ("encoder.attn.query.kernel", "encoder.norm.scale")
    assert [name for name in SHAPES if parameters[name].requires_grad] == trained
    assert not any("encoder" in name for name in optimizer.state_dict())


def test_clipping_scales_all_gradients_to_the_given_norm() -> None:
    config = AdamWConfig(learning_rate=0.1, epsilon=1.0)
    clipped, scaled = make_parameters(), make_parameters()
    set_gradients(clipped, 0)
    set_gradients(scaled, 0)
    norm = global_grad_norm(p.grad for p in scaled.values() if p.grad is not None)
    for parameter in scaled.values():
        assert parameter.grad is not None
        parameter.grad *= 2.0 / norm
    report = Optimizer(clipped, config.model_copy(update={"grad_clip_norm": 2.0})).step(1.0)
    assert report.grad_norm == pytest.approx(norm)
    Optimizer(scaled, config).step(1.0)
    for name in SHAPES:
        torch.testing.assert_close(clipped[name], scaled[name])


def test_the_report_holds_the_norms_of_gradient_and_change() -> None:
    parameters = make_parameters()
    before = values(parameters)
    optimizer = Optimizer(parameters, CONFIGS[0])
    set_gradients(parameters, 0)
    gradient = torch.cat([p.grad.flatten() for p in parameters.values() if p.grad is not None])
    report = optimizer.step(0.5)
    change = torch.cat([(parameters[n] - before[n]).flatten() for n in SHAPES])
    assert report.grad_norm == pytest.approx(gradient.double().norm().item(), rel=1e-6)
    assert report.update_norm == pytest.approx(change.double().norm().item(), rel=1e-3)


def test_at_multiplier_zero_only_the_statistics_move() -> None:
    parameters = make_parameters()
    before = values(parameters)
    optimizer = Optimizer(parameters, CONFIGS[0])
    set_gradients(parameters, 0)
    report = optimizer.step(0.0)
    assert report.update_norm == 0.0
    assert all(torch.equal(parameters[name], before[name]) for name in SHAPES)
    assert all(tensor.any() for tensor in optimizer.state_dict().values())


@pytest.mark.parametrize("config", CONFIGS)
def test_an_update_that_is_not_finite_changes_nothing(
    config: AdafactorConfig | AdamWConfig,
) -> None:
    parameters = make_parameters()
    optimizer = Optimizer(parameters, config)
    for seed in range(3):
        set_gradients(parameters, seed)
        if seed == 2:
            weights = values(parameters)
            state = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
            assert optimizer.step(1e38).update_norm == math.inf
            assert all(torch.equal(parameters[name], weights[name]) for name in SHAPES)
            found = optimizer.state_dict()
            assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
        assert math.isfinite(optimizer.step(0.7).update_norm)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_one_bad_element_makes_the_norm_not_finite(poison: float) -> None:
    gradients = [torch.ones(3), torch.ones(4, 5), torch.ones(2)]
    assert global_grad_norm(gradients) == pytest.approx(5.0)
    gradients[1][3, 2] = poison
    assert not math.isfinite(global_grad_norm(gradients))


def test_a_pattern_that_matches_nothing_is_named_with_some_names() -> None:
    cases: list[dict[str, Any]] = [
        {"frozen": ["encodr/.*"]},
        {"learning_rate_multipliers": [["encodr/.*", 0.1]]},
        {"weight_decay": 0.1, "weight_decay_multipliers": [["encodr/.*", 0.1]]},
    ]
    for case in cases:
        config = AdafactorConfig.model_validate({"learning_rate": 1.0, **case})
        message = rf"optimizer\.{list(case)[-1]}: pattern 'encodr/\.\*' .* 5 .*'decoder/dense/bias'"
        with pytest.raises(ValueError, match=message):
            Optimizer(make_parameters(), config)


def test_without_weight_decay_its_patterns_need_not_match() -> None:
    Optimizer({"weight": nn.Parameter(torch.zeros(3))}, AdamWConfig(learning_rate=1.0))


def test_a_parameter_without_gradient_is_named() -> None:
    parameters = make_parameters()
    optimizer = Optimizer(parameters, CONFIGS[0])
    set_gradients(parameters, 0)
    optimizer.zero_grad()
    with pytest.raises(ValueError, match=r"'decoder\.dense\.bias' has no gradient"):
        optimizer.step(1.0)
    assert optimizer.num_steps == 0


def test_all_frozen_and_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to train: all 5 parameters are frozen"):
        Optimizer(make_parameters(), AdamWConfig(learning_rate=1.0, frozen=(".*",)))
    half = {"p": nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))}
    with pytest.raises(ValueError, match="'p' is torch.bfloat16, but .* float32"):
        Optimizer(half, AdamWConfig(learning_rate=1.0))


def test_state_of_another_model_or_config_is_refused_and_changes_nothing() -> None:
    optimizer = Optimizer(make_parameters(), AdafactorConfig(learning_rate=1.0))
    others: list[tuple[dict[str, nn.Parameter], AdafactorConfig | AdamWConfig, str]] = [
        (make_parameters(), AdamWConfig(learning_rate=1.0), "lacks|has an unknown"),
        (
            {**make_parameters(), "decoder.dense.bias": nn.Parameter(torch.zeros(35))},
            AdafactorConfig(learning_rate=1.0),
            r"'second_moment/decoder.dense.bias' should be .* \[36\] but is .* \[35\]",
        ),
        (
            make_parameters(),
            AdafactorConfig(learning_rate=1.0, momentum_dtype="float32"),
            "should be torch.bfloat16 .* but is torch.float32",
        ),
    ]
    for parameters, config, message in others:
        other = Optimizer(parameters, config)
        set_gradients(parameters, 0)
        other.step(1.0)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(other.state_dict())
    assert optimizer.num_steps == 0
    assert not any(tensor.any() for tensor in optimizer.state_dict().values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "adafactor"}, "learning_rate"),
        ({"kind": "sgd", "learning_rate": 1.0}, "'adafactor', 'adamw'"),
        ({"kind": "adamw", "learning_rate": 1.0, "momentum": 0.9}, "momentum"),
        ({"kind": "adamw", "learning_rate": 1.0, "frozen": ["*"]}, "not a regular expression"),
        (
            {"kind": "adamw", "learning_rate": 1.0, "learning_rate_multipliers": [[".*", 0.0]]},
            "greater than 0",
        ),
    ],
)
def test_impossible_configs_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(OptimizerConfig).validate_python(config)
