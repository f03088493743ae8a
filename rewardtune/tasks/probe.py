"""What a task tells for its reward to be checked: made predictions, and what must hold.

A prediction is whatever the task's reward takes: tokens, a map, a caption, a picture.

Axes: N examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score

P = TypeVar("P")

Kind: TypeAlias = Literal["perfect", "shuffled", "duplicated", "jittered", "random", "empty"]
KINDS: dict[Kind, str] = {
    "perfect": "the annotation itself",
    "shuffled": "its parts in another order",
    "duplicated": "its parts twice",
    "jittered": "the annotation with mistakes, few or many",
    "random": "nothing of the annotation but its size",
    "empty": "nothing at all",
}
GROUP_KINDS: tuple[Kind, ...] = ("jittered", "random")
"""Kinds of which several draws make a group: a good policy's mistakes, and no policy at all."""


@dataclass(frozen=True, slots=True)
class Claim(Generic[P]):
    """Two cases whose rewards must be equal, or of which the second must not earn more."""

    name: str
    """What is changed: "box order"."""
    before: P
    after: P
    relation: Literal["equal", "not above"] = "equal"
    example_after: Example | None = None
    """Where it is the annotation that is changed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The official metrics of one prediction per example."""

    overall: Mapping[str, float]
    """By name, the main one first."""
    per_example_N: Mapping[str, NDArray[np.float64]]
    """Each alone; NaN where an image has nothing to measure."""


class Probe(Protocol[P]):
    """Made predictions of one task, and its reward of them. Pure: the same draws, the same."""

    @property
    def task(self) -> str: ...

    @property
    def kinds(self) -> Sequence[Kind]:
        """Those that the task has; "perfect" and "empty" among them."""
        ...

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> P:
        """A prediction of a kind.

        Raises:
            ValueError: the example lacks the annotation that the task is about.
        """
        ...

    def score(self, predictions: Sequence[P], example: Example) -> Score:
        """The reward that is checked, of the predictions as one group."""
        ...

    def decoded(self, predictions: Sequence[P], example: Example) -> Sequence[object]:
        """The predictions as a custom reward is given them (``Task.decode``)."""
        ...

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[P]]:
        """What must hold beside what holds of every reward."""
        ...

    def measure(self, predictions: Sequence[P], indices: Sequence[int]) -> Measured:
        """The official metrics of one prediction for each of the examples at ``indices``."""
        ...


@runtime_checkable
class ProbedTask(Protocol):
    """What a task's class has beside ``Task`` if it knows how to make predictions of its kind.

    ``rewardtune reward check`` makes do with token sequences where there is no such method
    (``rewardtune.tasks.token_probe``).
    """

    @classmethod
    def probe(cls, options: Mapping[str, Any], dataset: Dataset) -> Probe[Any]:
        """The probe of the task's own reward on a data set.

        Args:
            options: as they were given, of the reward; paths are not resolved.

        Raises:
            ValueError: an option that it does not know, or a file that cannot be used.
        """
        ...
