"""What a run's scores are like, whoever reached them: what the learner holds a result against.

Axes: S rollouts, P steps of a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rewardtune.records.group import Score

REWARD = "reward"
"""By which name a bound is the reward's own; all others are components and aux."""
STEP_REWARD = "step_reward"
# Sums of float64 in another order, and bounds that are met exactly.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ScorePromise:
    """Names, shapes and limits; what is empty promises nothing."""

    components: tuple[str, ...] = ()
    """At least these are there."""
    aux: Mapping[str, tuple[int, ...]] | None = None
    """These and no other, each with its shape after [S]; None: unknown."""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and greatest value, by name."""
    has_step_sums: bool = False
    """``step_reward`` [S, P] sums to the reward."""


def broken_promise(score: Score, promise: ScorePromise) -> str | None:
    """The first thing that is wrong with a score, as one line; None: nothing is.

    Args:
        score: one row per rollout everywhere, as ``transport.wire`` reads it.
    """
    named: dict[str, NDArray[np.float64]] = {
        **score.components,
        **score.aux,
        REWARD: score.reward_S,
    }
    for name, values in named.items():
        if not np.isfinite(values).all():
            return f"{name} is {values[~np.isfinite(values)].flat[0]}, not a finite number"
    if missing := sorted(set(promise.components) - set(score.components)):
        return f"component '{missing[0]}' is missing"
    if promise.aux is not None:
        shapes = {name: values.shape[1:] for name, values in score.aux.items()}
        for name in sorted(set(promise.aux) | set(shapes)):
            if shapes.get(name) != promise.aux.get(name):
                return (
                    f"aux '{name}' is {_shape(shapes.get(name))}, "
                    f"the task's is {_shape(promise.aux.get(name))}"
                )
    for name, (least, greatest) in promise.bounds.items():
        slack = _TOLERANCE * max(1.0, abs(least), abs(greatest))
        values = named.get(name, np.zeros(0))
        beyond = values[(values < least - slack) | (values > greatest + slack)]
        if beyond.size:
            return f"{name} is {beyond.flat[0]:g}, outside {least:g} to {greatest:g}"
    if promise.has_step_sums and not has_step_sums(score):
        return f"{STEP_REWARD} does not sum to the reward"
    return None


def has_step_sums(score: Score) -> bool:
    """Whether there are rewards of steps, and they sum to the reward."""
    if STEP_REWARD not in score.aux:
        return False
    sum_S = score.aux[STEP_REWARD].reshape(len(score.reward_S), -1).sum(axis=1)
    return bool(np.allclose(sum_S, score.reward_S, rtol=_TOLERANCE, atol=_TOLERANCE))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[S{''.join(f', {size}' for size in shape)}]"
