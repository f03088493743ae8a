"""Panoptic quality as officially defined, one image at a time, plainly.

This is the definition: short and slow. ``matching.py`` computes the same numbers for whole
batches, and tests hold the two together.

A map gives each pixel the id of its segment. Id 0 is void: nobody said what is there. Categories
are any integers. Where the official evaluation has a corner, this one has it too:

- Areas of target segments are those listed, which may differ from what is painted.
- Target ids that are painted but not listed belong to no segment, yet are not void.
- Only void of the *target* leaves the union; void of the prediction stays in it.
- Of several crowd segments of one category only the last listed excuses predictions.
- Of segments listed twice under one id, the last counts, in the place of the first.

Axes: H height, W width.
Source: cocodataset/panopticapi, ``evaluation.py`` (BSD-2); Kirillov et al. 2019,
arXiv:1801.00868.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment

VOID = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """How the segments of one category fared, in an image or in many."""

    matched_iou: float = 0.0
    """Overlaps of the matched pairs, summed."""
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.matched_iou + other.matched_iou,
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def is_empty(self) -> bool:
        """Nothing of this category was annotated or predicted, or everything is excused."""
        return self.true_positives + self.false_positives + self.false_negatives == 0


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic, segmentation and recognition quality, in [0, 1]; or the means of several."""

    pq: float
    sq: float
    rq: float


def match_image(
    target_id_HW: NDArray[np.integer[Any]],
    target: Sequence[Segment],
    predicted_id_HW: NDArray[np.integer[Any]],
    predicted: Mapping[int, int],
) -> dict[int, Counts]:
    """Match the predicted segments of one image with the annotated ones.

    A pair matches if it is of one category, the annotated one is no crowd, and the overlap is
    above 0.5. Annotated segments left over are false negatives unless crowds; predicted ones are
    false positives unless more than half of them lies on void or on a crowd of their category.

    Args:
        target_id_HW: annotated map, ids >= 0.
        target: the annotated segments, in the order of their file.
        predicted_id_HW: predicted map of the same shape.
        predicted: category of each predicted segment by id.

    Returns:
        The counts of every category that occurs in one of the two lists.

    Raises:
        ValueError: maps that do not fit, predicted ids painted but not listed or listed but not
            painted, or a listed area so small that a union is empty.
    """
    check_maps(target_id_HW, predicted_id_HW)
    listed = {segment.id: segment for segment in target}
    area = _sizes(predicted_id_HW)
    if unlisted := sorted(area.keys() - predicted.keys() - {VOID}):
        raise ValueError(f"predicted segment {unlisted[0]} is painted but not listed")
    if unpainted := sorted(predicted.keys() - area.keys()):
        raise ValueError(f"predicted segment {unpainted[0]} is listed but not painted")
    pairs, size = np.unique(
        np.stack([target_id_HW.ravel(), predicted_id_HW.ravel()]).astype(np.int64),
        axis=1,
        return_counts=True,
    )
    common = {(g, p): n for (g, p), n in zip(pairs.T.tolist(), size.tolist(), strict=True)}
    counts = {
        category: Counts()
        for category in [*(segment.category for segment in listed.values()), *predicted.values()]
    }

    matched_targets, matched_predictions = set(), set()
    for (g, p), intersection in common.items():
        if g not in listed or p not in predicted:
            continue
        if listed[g].is_crowd or listed[g].category != predicted[p]:
            continue
        union = area[p] + listed[g].area - intersection - common.get((VOID, p), 0)
        if union == 0:
            raise ValueError(f"segment {g} has area {listed[g].area}: far less than is painted")
        overlap = intersection / union
        if overlap > 0.5:
            counts[predicted[p]] += Counts(overlap, true_positives=1)
            matched_targets.add(g)
            matched_predictions.add(p)

    crowd_of = {}
    for g, segment in listed.items():
        if segment.is_crowd:
            crowd_of[segment.category] = g
        elif g not in matched_targets:
            counts[segment.category] += Counts(false_negatives=1)
    for p, category in predicted.items():
        if p in matched_predictions:
            continue
        excused = common.get((VOID, p), 0)
        if category in crowd_of:
            excused += common.get((crowd_of[category], p), 0)
        if not excused / area[p] > 0.5:
            counts[category] += Counts(false_positives=1)
    return counts


def check_maps(target_HW: NDArray[Any], predicted_HW: NDArray[Any]) -> None:
    """Raises ValueError unless both are maps of ids >= 0 and of one shape, and not empty."""
    for name, map_HW in (("target", target_HW), ("predicted", predicted_HW)):
        if map_HW.ndim != 2 or map_HW.size == 0 or not np.issubdtype(map_HW.dtype, np.integer):
            raise ValueError(
                f"the {name} map must be integers [H, W], got {map_HW.dtype} {list(map_HW.shape)}"
            )
        if not np.issubdtype(map_HW.dtype, np.unsignedinteger) and map_HW.min() < 0:
            raise ValueError(f"the {name} map has the id {map_HW.min()}: ids must be 0 or more")
    if target_HW.shape != predicted_HW.shape:
        raise ValueError(
            f"the target map is {_size(target_HW)} and the predicted map {_size(predicted_HW)} "
            "(height x width): resize the prediction to the image"
        )


def image_reward(counts: Mapping[int, Counts], *, false_positive_weight: float = 0.3) -> float:
    """The paper's reward of one image: overlaps matched, less a charge for false positives.

    Unit: segments. Segments that nobody found cost nothing.

    Source: Pinto et al. 2023, arXiv:2302.08242, section on panoptic segmentation.
    """
    total = sum(counts.values(), Counts())
    return total.matched_iou - false_positive_weight * total.false_positives


def category_quality(counts: Counts) -> Quality:
    """Qualities of one category over a data set; all 0 if nothing of it was there."""
    if counts.is_empty:
        return Quality(0.0, 0.0, 0.0)
    weight = counts.true_positives + 0.5 * counts.false_positives + 0.5 * counts.false_negatives
    return Quality(
        pq=counts.matched_iou / weight,
        sq=counts.matched_iou / counts.true_positives if counts.true_positives else 0.0,
        rq=counts.true_positives / weight,
    )


def mean_quality(counts: Iterable[Counts]) -> tuple[Quality | None, int]:
    """Means over the categories that are not empty, and how many those are.

    None if there are none, where the official evaluation divides by 0.
    """
    each = [category_quality(c) for c in counts if not c.is_empty]
    if not each:
        return None, 0
    # Added one by one as officially; numpy's mean may differ in the last digit.
    num = len(each)
    return Quality(
        pq=_sum(q.pq for q in each) / num,
        sq=_sum(q.sq for q in each) / num,
        rq=_sum(q.rq for q in each) / num,
    ), num


def _sum(values: Iterable[float]) -> float:
    # From Python 3.12 on, sum() compensates rounding.
    total = 0.0
    for value in values:
        total += value
    return total


def _sizes(id_HW: NDArray[np.integer[Any]]) -> dict[int, int]:
    ids, sizes = np.unique(id_HW, return_counts=True)
    return dict(zip(ids.tolist(), sizes.tolist(), strict=True))


def _size(map_HW: NDArray[Any]) -> str:
    return f"{map_HW.shape[0]} x {map_HW.shape[1]}"
