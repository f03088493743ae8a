"""What a run's scores are like, whoever reached them: what the learner holds a result against.

Axes: S rollouts, P steps of a sequence.
"""

from __future__ import annotations

import math
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
_FEW = 64
_NO_BOUNDS = (-math.inf, math.inf)


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


NOTHING_PROMISED = ScorePromise()


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
    beyond = ""
    for name, values in named.items():
        lowest, highest = _range(values)
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            return f"{name} is {values[~np.isfinite(values)].flat[0]}, not a finite number"
        least, greatest = promise.bounds.get(name, _NO_BOUNDS)
        slack = _TOLERANCE * max(1.0, abs(least), abs(greatest))
        if not beyond and (lowest < least - slack or highest > greatest + slack):
            worst = lowest if lowest < least - slack else highest
            beyond = f"{name} is {worst:g}, outside {least:g} to {greatest:g}"
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
    if beyond:
        return beyond
    if promise.has_step_sums and not has_step_sums(score):
        return f"{STEP_REWARD} does not sum to the reward"
    return None


def has_step_sums(score: Score) -> bool:
    """Whether there are rewards of steps, and they sum to the reward."""
    if STEP_REWARD not in score.aux:
        return False
    sum_S = score.aux[STEP_REWARD].reshape(len(score.reward_S), -1).sum(axis=1)
    error_S = np.abs(sum_S - score.reward_S) - _TOLERANCE * np.abs(score.reward_S)
    return bool((error_S <= _TOLERANCE).all())


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """The least and the greatest; not finite where any is not."""
    if values.size == 0:
        return 0.0, 0.0
    # Of a handful numpy takes longer to begin than Python to end; but it sees a NaN among them.
    if values.size <= _FEW:
        few = values.ravel().tolist()
        if math.isfinite(sum(few)):
            return min(few), max(few)
    return float(values.min()), float(values.max())


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[S{''.join(f', {size}' for size in shape)}]"
