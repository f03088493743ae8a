import math
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from learner.schedule import ScheduleConfig, duration_in_steps, multiplier

FIXTURE = Path(__file__).parents[1] / "fixtures" / "schedules.npz"


@pytest.mark.parametrize(
    ("name", "config", "total_steps"),
    [
        ("constant_warmup4000_total30000", ScheduleConfig(warmup=4000), 30_000),
        ("constant_nowarmup_total1000", ScheduleConfig(), 1000),
        ("cosine_warmup1000_total10000", ScheduleConfig(decay="cosine", warmup=1000), 10_000),
        ("cosine_warmup20000_total400000", ScheduleConfig(decay="cosine", warmup=20_000), 400_000),
    ],
)
def test_schedules_equal_those_of_big_vision(
    name: str, config: ScheduleConfig, total_steps: int
) -> None:
    with np.load(FIXTURE) as fixture:
        steps, expected = fixture[f"{name}/steps"], fixture[f"{name}/mult"]
    got = [multiplier(config, int(step), total_steps) for step in steps]
    # The reference computes in float32 what we compute in float64.
    np.testing.assert_allclose(got, expected, rtol=0, atol=float(np.finfo(np.float32).eps))


@pytest.mark.parametrize(
    ("config", "values"),
    [
        (ScheduleConfig(decay="linear"), {0: 1.0, 25: 0.75, 100: 0.0, 120: 0.0}),
        (ScheduleConfig(decay="linear", end=0.2, warmup=20), {10: 0.5, 20: 1.0, 60: 0.6}),
        (ScheduleConfig(decay="polynomial", power=2, end=0.5), {0: 1.0, 50: 0.625, 100: 0.5}),
        (ScheduleConfig(decay="cosine", warmup=50), {49: 0.98, 50: 1.0, 75: 0.5, 100: 0.0}),
        (
            ScheduleConfig(decay="rsqrt", timescale=4, shift=12, warmup=10),
            {5: 0.5 * 0.5, 10: 0.5, 30: 1 / 3},
        ),
        (
            ScheduleConfig(decay="stair", steps=(10, 20), mults=(0.1, 0.5)),
            {9: 1.0, 10: 0.1, 19: 0.1, 20: 0.5, 99: 0.5},
        ),
        (ScheduleConfig(cooldown=40), {60: 1.0, 90: 0.25, 100: 0.0, 110: 0.0}),
        (
            ScheduleConfig(decay="cosine", cooldown=50),
            {75: 0.25 * (1 + math.cos(math.pi * 0.75))},
        ),
    ],
)
def test_schedules_have_the_values_of_their_formula(
    config: ScheduleConfig, values: dict[int, float]
) -> None:
    got = {step: multiplier(config, step, 100) for step in values}
    assert got == pytest.approx(values, abs=1e-12)


def test_the_first_update_of_a_warm_up_is_zero_and_without_one_it_is_whole() -> None:
    assert multiplier(ScheduleConfig(warmup=10), 0, 100) == 0.0
    assert multiplier(ScheduleConfig(), 0, 100) == 1.0


def test_a_warm_up_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup of 100 steps must be shorter than the run of 100"):
        multiplier(ScheduleConfig(warmup=100), 0, 100)


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        (7, 7),
        ("7", 7),
        ("7 steps", 7),
        ("3 epochs", 94),
        ("0.5 epochs", 16),
        ("5000 examples", 156),
        ("1 examples", 1),
        ("0 epochs", 0),
    ],
)
def test_durations_are_counted_in_steps_rounded_to_nearest(duration: int | str, steps: int) -> None:
    assert duration_in_steps(duration, batch_size=32, num_examples=1000) == steps


@pytest.mark.parametrize(
    "duration", [-1, 1.5, True, "1.5 steps", "2 weeks", "-1 steps", "", [3], None]
)
def test_what_is_no_duration_is_one_clear_error(duration: object) -> None:
    with pytest.raises(ValidationError, match="'2 epochs'|counted whole") as error:
        ScheduleConfig.model_validate({"warmup": duration})
    assert error.value.error_count() == 1


def test_a_schedule_in_epochs_is_resolved_before_it_is_used() -> None:
    config = ScheduleConfig(decay="stair", warmup="1 epochs", steps=("2 epochs",), mults=(0.5,))
    with pytest.raises(ValueError, match=r"schedule.warmup is '1 epochs': resolve it"):
        multiplier(config, 0, 100)
    resolved = config.in_steps(batch_size=10, num_examples=100)
    assert (resolved.warmup, resolved.steps) == (10, (20,))
    assert multiplier(resolved, 5, 100) == 0.5
    assert multiplier(resolved, 20, 100) == 0.5


def test_a_schedule_survives_json() -> None:
    config = ScheduleConfig(decay="rsqrt", warmup="1 epochs", timescale=5)
    assert ScheduleConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": "cosine", "power": 2.0}, "'power' belongs to decay"),
        ({"decay": "linear", "steps": [1], "mults": [0.1]}, "'steps' belongs to decay"),
        ({"decay": "stair", "steps": [1, 2], "mults": [0.1]}, "as many 'mults' as 'steps'"),
        ({"decay": "rsqrt", "timescale": 0}, "longer than 0"),
        ({"decay": "exponential"}, "'cosine'"),
        ({"warm_up": 3}, "warm_up"),
    ],
)
def test_impossible_schedules_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScheduleConfig.model_validate(options)


def test_stairs_that_do_not_rise_are_refused() -> None:
    config = ScheduleConfig(decay="stair", steps=(20, 10), mults=(0.1, 0.5))
    with pytest.raises(ValueError, match="must rise"):
        multiplier(config, 0, 100)
