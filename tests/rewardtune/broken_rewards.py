"""Rewards that break a rule each; "module:function" of ``rewardtune reward check --reward``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

from rewardtune.datasets.example import Example

_calls: Iterator[int] = count()


def num_boxes(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    """A box more, an object more: what a policy would make of that is clear."""
    return [float(len(boxes)) for boxes in predictions]


def first_box(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    """The reward looks at one box only."""
    return [boxes[0].xyxy[0] if len(boxes) else -1.0 for boxes in predictions]


def rank_in_group(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    order = sorted(range(len(predictions)), key=lambda s: len(predictions[s]))
    return [float(order.index(s)) for s in range(len(predictions))]


def forgets(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    return [float(next(_calls)) for _ in predictions]


def not_a_number(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    return [float("nan") for _ in predictions]


def punishes(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    """Nothing is worth doing."""
    return [-float(len(boxes)) for boxes in predictions]


def raises(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    raise KeyError("threshold")


def one_for_all(predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
    return [1.0]


def is_short(predictions: Sequence[str], example: Example) -> list[float]:
    """Of captions: nothing wrong with it but that it likes the empty one best."""
    return [1.0 / (1 + len(caption)) for caption in predictions]


class Found:
    """A class makes a reward of its own: boxes whose class is in the image, each once."""

    def __call__(self, predictions: Sequence[Sequence[Any]], example: Example) -> list[float]:
        there = set(example.category_N.tolist())
        return [float(len({box.category for box in boxes} & there)) for boxes in predictions]
