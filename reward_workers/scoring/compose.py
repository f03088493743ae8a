"""From the values of a reward's parts to the reward. Pure.

Axes: P parts, S rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_workers.scoring.config import DEFAULT_AT_LEAST, Composed, RewardConfig


@dataclass(frozen=True, slots=True)
class Composition:
    """The reward, and every part of it before it was shaped and put together."""

    reward_S: NDArray[np.float64]
    parts: Mapping[str, NDArray[np.float64]]


def compose(config: RewardConfig, values: Mapping[str, NDArray[np.float64]]) -> Composition:
    """Put the parts together as ``config`` says.

    A part's value is that of its source, or the weighted sum or product of its parts; then it is
    clipped, then saturated, then replaced by ``otherwise`` where one of its gates is closed.

    Args:
        values: of the parts that have a source, each [S].
    """
    raw: dict[str, NDArray[np.float64]] = {}
    shaped: dict[str, NDArray[np.float64]] = {}

    def value(name: str) -> NDArray[np.float64]:
        if name not in shaped:
            part = config.parts[name]
            raw[name] = values[name] if part.use is not None else combined(part)
            shaped[name] = finished(part, raw[name])
        return shaped[name]

    def combined(composed: Composed) -> NDArray[np.float64]:
        if composed.sum is not None:
            weighted_PS = [weight * value(name) for name, weight in composed.sum.items()]
            return np.asarray(np.sum(weighted_PS, axis=0))
        return np.asarray(np.prod([value(name) for name in composed.operands], axis=0))

    def finished(composed: Composed, value_S: NDArray[np.float64]) -> NDArray[np.float64]:
        if composed.clip is not None:
            value_S = np.clip(value_S, *composed.clip)
        if composed.saturate is not None:
            value_S = composed.saturate * np.tanh(value_S / composed.saturate)
        for name in composed.gates:
            at_least = config.parts[name].at_least
            is_open_S = value(name) >= (DEFAULT_AT_LEAST if at_least is None else at_least)
            value_S = np.where(is_open_S, value_S, composed.otherwise)
        return value_S

    for name in config.parts:
        value(name)
    return Composition(reward_S=finished(config, combined(config)), parts=raw)
