"""The panoptic reward, checked on maps.

Axes: H height, W width, S predictions, P labels of a prediction, C categories, N examples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score
from rewardtune.tasks.panoptic.codec import segment_ids
from rewardtune.tasks.panoptic.definition import VOID, Counts, mean_quality
from rewardtune.tasks.panoptic.matching import NO_CATEGORY, match_labels
from rewardtune.tasks.panoptic.reward import FALSE_POSITIVE_WEIGHT, PanopticTarget, panoptic_reward
from rewardtune.tasks.probe import Claim, Kind, Measured

MAX_SHIFT = 0.06
"""Of the map's sides, by which jittering moves it."""
MISSED, MISTAKEN = 0.15, 0.1
"""Shares of segments that jittering leaves void, and gives another category."""
RANDOM_BLOCKS = 4
"""A random map has so many blocks down and across."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """A predicted map: the label of each pixel, and what each label means."""

    label_HW: NDArray[np.unsignedinteger[Any]]
    """0 is void."""
    category_P: NDArray[np.int32]
    """Index into the data set's categories; -1: no segment."""


class PanopticProbe:
    """Made maps; implements ``rewardtune.tasks.probe.Probe``."""

    task = "panoptic"
    kinds: Sequence[Kind] = (
        "perfect", "shuffled", "duplicated", "jittered", "random", "empty",
    )  # fmt: skip

    def __init__(self, options: Mapping[str, Any], dataset: Dataset) -> None:
        """
        Args:
            options: false_positive_weight, segments lost per predicted segment that matches
                nothing.

        Raises:
            ValueError: an option that it does not know.
        """
        if unknown := options.keys() - {"false_positive_weight"}:
            raise ValueError(
                f"unknown option '{min(unknown)}' of panoptic: the only one is "
                "false_positive_weight"
            )
        self._weight = float(options.get("false_positive_weight", FALSE_POSITIVE_WEIGHT))
        self._dataset = dataset
        self._is_thing_C = np.array([category.is_thing for category in dataset.categories])
        self._prepared: tuple[Example, PanopticTarget] | None = None

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> LabelMap:
        target = self._target(example)
        perfect = LabelMap(target.label_HW, target.table.category_IG[0])
        if kind == "empty":
            return LabelMap(np.zeros_like(target.label_HW), np.array([NO_CATEGORY], np.int32))
        if kind == "shuffled":
            return _renumbered(perfect, rng)
        if kind == "duplicated":
            return _halved(perfect)
        if kind == "jittered":
            return _with_mistakes(perfect, num_categories=len(self._is_thing_C), rng=rng)
        if kind == "random":
            return _made_up(target.label_HW.shape, num_categories=len(self._is_thing_C), rng=rng)
        return perfect

    def score(self, predictions: Sequence[LabelMap], example: Example) -> Score:
        label_SHW, category_SP = _stacked(predictions)
        reward = panoptic_reward(
            label_SHW,
            category_SP,
            self._target(example),
            is_thing_C=self._is_thing_C,
            false_positive_weight=self._weight,
        )
        return Score(
            reward_S=reward.reward_S,
            components={
                "matched_iou": reward.matched_iou_S,
                "true_positives": reward.true_positives_S.astype(np.float64),
                "false_positives": reward.false_positives_S.astype(np.float64),
                "false_negatives": reward.false_negatives_S.astype(np.float64),
            },
        )

    def decoded(
        self, predictions: Sequence[LabelMap], example: Example
    ) -> Sequence[NDArray[np.int32]]:
        """Maps of class (0: void, else the category's index + 1) and instance, each [H, W, 2]."""
        return [
            np.stack([(each.category_P + 1)[each.label_HW], each.label_HW], axis=-1).astype(
                np.int32
            )
            for each in predictions
        ]

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[LabelMap]]:
        perfect = self.draw("perfect", example, rng)
        jittered = self.draw("jittered", example, rng)
        claims = [
            Claim("segment ids", jittered, _renumbered(jittered, rng)),
            Claim("segment split off", perfect, _split_off(perfect), "not above"),
        ]
        crowds = Counter(segment.category for segment in example.segments if segment.is_crowd)
        # Of several crowds of one category only the last listed excuses predictions.
        if all(count == 1 for count in crowds.values()):
            turned = replace(example, segments=example.segments[::-1])
            claims.append(Claim("segment order", jittered, jittered, example_after=turned))
        return claims

    def measure(self, predictions: Sequence[LabelMap], indices: Sequence[int]) -> Measured:
        """PQ, SQ and RQ, mean over the categories that occur."""
        per_image = [
            self._counts(prediction, self._dataset.example(index))
            for prediction, index in zip(predictions, indices, strict=True)
        ]
        each = [_qualities(counts) for counts in per_image]
        total: dict[int, Counts] = {}
        for counts in per_image:
            for category, count in counts.items():
                total[category] = total.get(category, Counts()) + count
        return Measured(
            overall=_qualities(total),
            per_example_N={
                name: np.array([qualities[name] for qualities in each]) for name in each[0]
            },
        )

    def _counts(self, prediction: LabelMap, example: Example) -> dict[int, Counts]:
        target = self._target(example)
        counts = match_labels(
            target.label_HW[None],
            target.table,
            prediction.label_HW[None],
            prediction.category_P[None],
            np.zeros(1, dtype=np.int64),
            is_merged_C=~self._is_thing_C,
        )
        return {
            c: Counts(
                matched_iou=float(counts.matched_iou_SC[0, c]),
                true_positives=int(counts.true_positives_SC[0, c]),
                false_positives=int(counts.false_positives_SC[0, c]),
                false_negatives=int(counts.false_negatives_SC[0, c]),
            )
            for c in range(len(self._is_thing_C))
        }

    def _target(self, example: Example) -> PanopticTarget:
        """Prepared once per example, so that the time measured is the reward's."""
        if self._prepared is None or self._prepared[0] is not example:
            self._prepared = example, PanopticTarget.of(segment_ids(example), example.segments)
        return self._prepared[1]


def _qualities(counts: Mapping[int, Counts]) -> dict[str, float]:
    quality, _ = mean_quality(counts.values())
    if quality is None:
        return dict.fromkeys(("PQ", "SQ", "RQ"), math.nan)
    return {"PQ": quality.pq, "SQ": quality.sq, "RQ": quality.rq}


def _stacked(
    predictions: Iterable[LabelMap],
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int32]]:
    maps = list(predictions)
    category_SP = np.full(
        (len(maps), max(len(m.category_P) for m in maps)), NO_CATEGORY, dtype=np.int32
    )
    for s, each in enumerate(maps):
        category_SP[s, : len(each.category_P)] = each.category_P
    return np.stack([each.label_HW for each in maps]), category_SP


def _renumbered(prediction: LabelMap, rng: np.random.Generator) -> LabelMap:
    """Every segment under another label; void stays 0."""
    num = len(prediction.category_P)
    label_of = np.concatenate([[VOID], 1 + rng.permutation(num - 1)])
    category_P = np.empty(num, dtype=np.int32)
    category_P[label_of] = prediction.category_P
    return LabelMap(label_of.astype(prediction.label_HW.dtype)[prediction.label_HW], category_P)


def _halved(prediction: LabelMap) -> LabelMap:
    """Every segment as two: no label can be painted twice."""
    label_HW = prediction.label_HW
    num = len(prediction.category_P)
    order_M = np.argsort(label_HW, axis=None, kind="stable")
    sorted_M = label_HW.ravel()[order_M]
    first_M = np.searchsorted(sorted_M, sorted_M, side="left")
    end_M = np.searchsorted(sorted_M, sorted_M, side="right")
    is_second_M = 2 * (np.arange(len(order_M)) - first_M) >= end_M - first_M
    halved_M = np.empty(label_HW.size, dtype=np.int64)
    halved_M[order_M] = sorted_M + np.where(is_second_M & (sorted_M != VOID), num - 1, 0)
    return _small(
        halved_M.reshape(label_HW.shape),
        np.append(prediction.category_P, prediction.category_P[1:]),
    )


def _split_off(prediction: LabelMap) -> LabelMap:
    """A quarter of the largest segment as one more of its category."""
    area_P = np.bincount(prediction.label_HW.ravel(), minlength=len(prediction.category_P))
    area_P[prediction.category_P == NO_CATEGORY] = 0
    largest = int(area_P.argmax())
    label_HW = prediction.label_HW.astype(np.int64)
    inside_M = np.flatnonzero(label_HW == largest)
    label_HW.ravel()[inside_M[: len(inside_M) // 4]] = len(prediction.category_P)
    return _small(label_HW, np.append(prediction.category_P, prediction.category_P[largest]))


def _with_mistakes(
    prediction: LabelMap, *, num_categories: int, rng: np.random.Generator
) -> LabelMap:
    height, width = prediction.label_HW.shape
    reach = MAX_SHIFT * rng.random()
    rows = np.arange(height) + round(rng.uniform(-reach, reach) * height)
    columns = np.arange(width) + round(rng.uniform(-reach, reach) * width)
    label_HW = prediction.label_HW[
        np.clip(rows, 0, height - 1)[:, None], np.clip(columns, 0, width - 1)
    ]
    num = len(prediction.category_P)
    is_mistaken_P = (rng.random(num) < MISTAKEN) & (prediction.category_P != NO_CATEGORY)
    other_P = rng.integers(num_categories, size=num, dtype=np.int32)
    category_P = np.where(is_mistaken_P, other_P, prediction.category_P)
    category_P[rng.random(num) < MISSED] = NO_CATEGORY
    return LabelMap(label_HW, category_P)


def _made_up(shape: tuple[int, ...], *, num_categories: int, rng: np.random.Generator) -> LabelMap:
    row = np.arange(shape[0]) * RANDOM_BLOCKS // shape[0]
    column = np.arange(shape[1]) * RANDOM_BLOCKS // shape[1]
    num = RANDOM_BLOCKS**2
    category_P = np.append(NO_CATEGORY, rng.integers(num_categories, size=num))
    label_HW = 1 + row[:, None] * RANDOM_BLOCKS + column
    return LabelMap(label_HW.astype(np.uint8), category_P.astype(np.int32))


def _small(label_HW: NDArray[np.int64], category_P: NDArray[np.int32]) -> LabelMap:
    dtype = np.uint8 if len(category_P) <= 256 else np.uint16
    return LabelMap(label_HW.astype(dtype), category_P)
