"""The learning-rate schedule: what fraction of the peak rate each update uses."""

import math
import re
from bisect import bisect_right
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(?: *(steps|epochs|examples))?")


def _parse_duration(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            f"a duration is a whole number of steps, or a text such as '1000 steps', '2 epochs' "
            f"or '5000 examples'; got {value!r}"
        )
    amount, unit = match.groups(default="steps")
    if unit != "steps":
        return f"{amount} {unit}"
    if "." in amount:
        raise ValueError(f"steps are counted whole, got {value!r}")
    return int(amount)


Duration = Annotated[int | str, BeforeValidator(_parse_duration)]
"""A length of training: ``1000`` or ``"1000 steps"``, ``"2 epochs"``, ``"5000 examples"``."""


def duration_in_steps(duration: int | str, *, batch_size: int, num_examples: int) -> int:
    """How many updates a duration takes: the nearest whole number, at least 1 unless it is 0.

    Args:
        duration: what a ``Duration`` field holds.
        batch_size: examples per update.
        num_examples: examples per epoch.

    Raises:
        ValueError: ``duration`` is not one.

    Source: big_vision utils.py, ``steps``.
    """
    duration = _parse_duration(duration)
    if isinstance(duration, int):
        return duration
    amount, unit = duration.split()
    examples = float(amount) * (num_examples if unit == "epochs" else 1)
    return max(1, round(examples / batch_size)) if examples else 0


class ScheduleConfig(BaseModel):
    """Warm-up, then a decay, then an optional cool-down. The peak rate is the optimizer's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decay: Literal["constant", "cosine", "linear", "polynomial", "rsqrt", "stair"] = "constant"
    """How the rate falls between warm-up and the end of the run."""

    warmup: Duration = 0
    """Linear rise from 0: update 0 of a run with warm-up moves no weight."""

    cooldown: Duration = 0
    """Linear fall to 0 at the end of the run, on top of the decay."""

    end: float = Field(default=0.0, ge=0.0)
    """linear, polynomial: the multiplier at the end of the run."""

    power: float = Field(default=1.0, gt=0.0)
    """polynomial: exponent of the remaining share of the run."""

    timescale: Duration = 10_000
    """rsqrt: time after which the rate has fallen by sqrt(2)."""

    shift: Duration = 0
    """rsqrt: time that counts as already past, to continue an earlier run."""

    steps: tuple[Duration, ...] = ()
    """stair: when each of ``mults`` takes over from the one before; the first is 1."""

    mults: tuple[float, ...] = ()
    """stair: multipliers of the peak rate, not of each other; one per entry of ``steps``."""

    @model_validator(mode="after")
    def _options_belong_to_the_decay(self) -> Self:
        owners = {
            "end": ("linear", "polynomial"),
            "power": ("polynomial",),
            "timescale": ("rsqrt",),
            "shift": ("rsqrt",),
            "steps": ("stair",),
            "mults": ("stair",),
        }
        for name, decays in owners.items():
            is_set = getattr(self, name) != type(self).model_fields[name].default
            if is_set and self.decay not in decays:
                raise ValueError(f"'{name}' belongs to decay {decays}, but decay is {self.decay!r}")
        if len(self.steps) != len(self.mults):
            raise ValueError(
                f"a stair needs as many 'mults' as 'steps', got {len(self.mults)} and "
                f"{len(self.steps)}"
            )
        if self.timescale == 0:
            raise ValueError("'timescale' must be longer than 0")
        return self

    def in_steps(self, *, batch_size: int, num_examples: int) -> Self:
        """The same schedule with every duration counted in updates."""

        def steps(duration: int | str) -> int:
            return duration_in_steps(duration, batch_size=batch_size, num_examples=num_examples)

        lengths = ("warmup", "cooldown", "timescale", "shift")
        resolved: dict[str, object] = {name: steps(getattr(self, name)) for name in lengths}
        resolved["steps"] = tuple(steps(duration) for duration in self.steps)
        return self.model_copy(update=resolved)


def multiplier(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """The factor on the peak learning rate, and on weight decay, of one update.

    Args:
        config: durations in steps; see ``ScheduleConfig.in_steps``.
        step: 0-based index of the update.
        total_steps: updates in the whole run.

    Raises:
        ValueError: the warm-up does not end before the run does, a duration is not in steps, or
            the steps of a stair do not rise.

    Source: big_vision utils.py, ``create_learning_rate_schedule``.
    """
    warmup = _in_steps("warmup", config.warmup)
    cooldown = _in_steps("cooldown", config.cooldown)
    if warmup >= total_steps:
        raise ValueError(
            f"warmup of {warmup} steps must be shorter than the run of {total_steps}: "
            f"lower schedule.warmup or train for longer"
        )
    rising = min(1.0, step / warmup) if warmup else 1.0
    falling = min(1.0, max(0.0, (total_steps - step) / cooldown)) if cooldown else 1.0
    return rising * _decay(config, step, warmup=warmup, total_steps=total_steps) * falling


def _decay(config: ScheduleConfig, step: int, *, warmup: int, total_steps: int) -> float:
    progress = min(1.0, max(0.0, (step - warmup) / (total_steps - warmup)))
    match config.decay:
        case "constant":
            return 1.0
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case "linear" | "polynomial":
            return float(config.end + (1.0 - config.end) * (1.0 - progress) ** config.power)
        case "rsqrt":
            past = max(0, step - warmup) + _in_steps("shift", config.shift)
            return 1.0 / math.sqrt(1.0 + past / _in_steps("timescale", config.timescale))
        case "stair":
            steps = [_in_steps("steps", duration) for duration in config.steps]
            if steps != sorted(set(steps)):
                raise ValueError(f"the steps of a stair must rise, got {steps}")
            return (1.0, *config.mults)[bisect_right(steps, step)]


def _in_steps(name: str, duration: int | str) -> int:
    if isinstance(duration, str):
        raise ValueError(
            f"schedule.{name} is {duration!r}: resolve it with ScheduleConfig.in_steps first"
        )
    return duration
