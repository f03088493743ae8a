"""What the slow tasks of ``bench`` do to a score."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rewardtune.records import Score

SECONDS = 0.02


def slowly(scored: Score, tokens_ST: NDArray[np.int32]) -> Score:
    """The score, after a moment and a little changed.

    A network that trains in seconds is right about nothing: so that rollouts differ all the same,
    their tokens count.
    """
    time.sleep(SECONDS)
    return replace(scored, reward_S=scored.reward_S + (tokens_ST % 7).mean(axis=1))
