"""The unit of work: one example with all its rollouts, and what scoring made of it.

Axes: S rollouts of the group, T tokens of a sequence, Q probed tokens, P positions, K token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """The part of an image that is stretched over the whole input, whatever its aspect."""

    aspect: float = 0.0
    """Its width over its height, in pixels of the image; 0: all of the image, whatever that has."""
    min_area: float = 0.0
    """What share of the image's area it has at least."""
    size: float = 0.0
    """From 0, a window of the least area, to 1, the largest of its aspect that the image holds:
    heights between lie evenly. Where not even that has ``min_area``, all of the image is shown."""


@dataclass(frozen=True, slots=True)
class View:
    """How an image and its target are laid into the model's input, shared by both.

    Without a window the image keeps its aspect: its longer side becomes ``scale`` times the
    input's side. What room is left over (or, for scale > 1 and for a window, what is cut off) is
    divided by the offsets: 0 puts it all at the bottom and right, 1 all at the top and left.
    Flipping comes first.
    """

    flip: bool = False
    scale: float = 1.0
    """1 where there is a window, which says itself how large things are."""
    offset_y: float = 0.0
    offset_x: float = 0.0
    window: Window | None = None


@dataclass(frozen=True, slots=True, order=True)
class Published:
    """Names one set of weights: which start of the learner, and the batches it had consumed."""

    term: int
    policy_version: int


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one example, drawn by one set of weights."""

    ordinal: int
    """Index of the group in the run."""
    example: int
    """Index of the example in the data set."""
    view: View
    published: Published
    """The weights that drew it: what the sampler had loaded, not what it was asked for."""
    tokens_ST: NDArray[np.int32]
    log_probs_ST: NDArray[np.float32]
    """Log-probability of each drawn token at the temperature that it was drawn at, whatever
    ``top_k`` and ``top_p`` left."""
    probe_log_probs_STQ: NDArray[np.float32]
    """Log-probability of each token the task probes, at every position; Q may be 0."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a task made of a group: one reward per rollout and what it consists of."""

    reward_S: NDArray[np.float64]
    components: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Named parts of the reward, each [S], logged before they are composed."""
    aux: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """What ``token_targets`` needs, each [S, ...]. Under "step_reward", if the task can tell, what
    each of P equally long steps of a sequence earned [S, P]: they sum to the reward."""
    is_valid: bool = True
    """False: scoring failed for good. The group trains nothing; its reward is not 0 but unknown."""


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A group joined with its score; the two never travel apart."""

    group: Group
    score: Score


@dataclass(frozen=True, slots=True)
class TokenRewards:
    """What each step of every rollout would have earned with another token at one position.

    All else as it was drawn. With these the learner takes the expectation over those tokens in
    place of the one that was drawn.
    """

    positions_P: NDArray[np.int64]
    """One in each of P equally long steps."""
    token_ids_K: NDArray[np.int64]
    reward_SPK: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TokenTargets:
    """Soft targets for some positions of every rollout, beside the policy gradient.

    The loss is ``weight`` times the mean, over rollouts and positions, of the cross entropy
    between ``probabilities_SPK`` and the policy's distribution at ``token_ids_K``.
    """

    positions_P: NDArray[np.int64]
    token_ids_K: NDArray[np.int64]
    probabilities_SPK: NDArray[np.float32]
    weight: float
