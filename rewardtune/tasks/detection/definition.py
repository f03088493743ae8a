"""The detection rewards as the paper defines them, one sequence and one threshold at a time.

This is the definition: short and slow. ``kernel.py`` computes the same numbers for whole
batches, and tests hold the two together.

Unit: objects. 0 for a prediction without boxes; for one that finds every object exactly, the
sum of the objects' class weights. Negative where duplicates outweigh what was found.

Coordinates are integer levels, so areas and intersections are exact, and an overlap of float64
is on the right side of any threshold with up to two decimals: for IoU = i/u and t = a/b the
smallest difference, 1/(b u), exceeds by orders what rounding (1e-16) can move.

Axes: P predicted boxes, G target boxes, C classes, K thresholds.
Source: Pinto et al. 2023, arXiv:2302.08242, and big_vision,
``configs/proj/reward_tune/detection_reward.py`` (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rewardtune.tasks.detection.codec import Boxes

MAP_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""As decimals: linspace's 0.8999999999999999 would let an overlap of exactly 0.9 through."""
RECALL_THRESHOLDS = (0.5,)
CORRECT_THRESHOLD = 0.5
"""The overlap from which a predicted box counts as correct when confidence is taught."""
IOU_EPSILON = 1e-9
"""Added to the union, in units of the squared side; keeps two empty boxes from dividing 0 by 0."""

Aggregate: TypeAlias = Literal["mean", "big_vision"]


def class_weights(count_C: ArrayLike, *, smoothing: float = 0.05) -> NDArray[np.float64]:
    """What one object of each class is worth [C]: inverse frequency, smoothed, mean 1.

    Args:
        count_C: annotated training instances of each class. All zero (nothing is known about
            frequencies): every class weighs 1.
        smoothing: share of all instances that is added to every class before inverting.

    Raises:
        ValueError: no class, a count that is negative or not finite, or a class without
            instances and no smoothing, whose weight would be infinite.
    """
    count = np.asarray(count_C, dtype=np.float64)
    if count.ndim != 1 or len(count) == 0 or not np.all(np.isfinite(count) & (count >= 0)):
        raise ValueError(f"class counts must be a list of numbers >= 0, got {count.tolist()}")
    if not (np.isfinite(smoothing) and smoothing >= 0):
        raise ValueError(f"smoothing must be a number >= 0, got {smoothing}")
    total = count.sum()
    if total == 0:
        return np.ones_like(count)
    smoothed = count + smoothing * total
    if not np.all(smoothed > 0):
        missing = np.flatnonzero(smoothed == 0).tolist()
        raise ValueError(f"classes {missing} have no instances: their weight needs smoothing > 0")
    inverse = 1.0 / smoothed
    weight_C: NDArray[np.float64] = len(count) * inverse / inverse.sum()
    return weight_C


def threshold_weights(
    iou_thresholds: Sequence[float], *, aggregate: Aggregate
) -> NDArray[np.float64]:
    """How much each threshold's reward counts in the sequence's reward [K]; sums to 1.

    "mean" is the paper's plain average. "big_vision" is what the published function returns:
    it files results under the threshold printed with one decimal, so that 0.55 overwrites
    nothing but is itself overwritten by 0.6, and the survivors count once for every threshold
    of their name: (r.50 + 2 r.60 + 2 r.70 + 3 r.85 + 2 r.95) / 10.

    Raises:
        ValueError: the thresholds are not strictly rising within (0, 1], or there are none.
    """
    check_thresholds(iou_thresholds)
    if aggregate == "mean":
        return np.full(len(iou_thresholds), 1.0 / len(iou_thresholds))
    names = [f"{threshold:.1f}" for threshold in iou_thresholds]
    survivor = {name: index for index, name in enumerate(names)}
    weight_K = np.zeros(len(names))
    for name in names:
        weight_K[survivor[name]] += 1.0 / len(names)
    return weight_K


def check_thresholds(iou_thresholds: Sequence[float]) -> None:
    """Raises ValueError unless the thresholds rise strictly within (0, 1]."""
    rising = all(a < b for a, b in pairwise(iou_thresholds))
    if not iou_thresholds or not rising or not all(0 < t <= 1 for t in iou_thresholds):
        raise ValueError(
            f"iou_thresholds must be a rising list of numbers in (0, 1], got {iou_thresholds}"
        )


def box_iou(predicted: Boxes, target: Boxes, *, max_level: int = 1000) -> NDArray[np.float64]:
    """Intersection over union of every pair [P, G].

    Inverted boxes have the area of their outline but intersect nothing, and boxes of no area
    intersect nothing, so no overlap is NaN.
    """
    p_P14 = np.rint(predicted.yxyx_N4[:, None] * max_level)
    g_1G4 = np.rint(target.yxyx_N4[None] * max_level)
    height = np.minimum(p_P14[..., 2], g_1G4[..., 2]) - np.maximum(p_P14[..., 0], g_1G4[..., 0])
    width = np.minimum(p_P14[..., 3], g_1G4[..., 3]) - np.maximum(p_P14[..., 1], g_1G4[..., 1])
    intersection_PG = np.maximum(height, 0) * np.maximum(width, 0)
    union_PG = box_area(p_P14) + box_area(g_1G4) - intersection_PG
    iou_PG: NDArray[np.float64] = intersection_PG / (union_PG + IOU_EPSILON * max_level**2)
    return iou_PG


def box_area(box_N4: NDArray[np.float64]) -> NDArray[np.float64]:
    area: NDArray[np.float64] = np.abs(
        (box_N4[..., 2] - box_N4[..., 0]) * (box_N4[..., 3] - box_N4[..., 1])
    )
    return area


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Which target each predicted box stands for at one threshold."""

    target_P: NDArray[np.int64]
    """Index of the target the box chose; -1: none."""
    iou_P: NDArray[np.float64]
    """Overlap with it; 0 where there is none."""
    is_duplicate_P: NDArray[np.bool_]
    """Another box chose the same target and fits it better (or as well, and comes first)."""


def match_boxes(
    predicted: Boxes, target: Boxes, *, iou_threshold: float, max_level: int = 1000
) -> Match:
    """Let each predicted box choose the target of its class that it overlaps most.

    A box chooses only where it overlaps by strictly more than the threshold, never falls back
    to its second best, and on ties takes the first. Slots without a box choose nothing.
    """
    num_predicted, num_targets = len(predicted), len(target)
    target_P = np.full(num_predicted, -1, dtype=np.int64)
    iou_P = np.zeros(num_predicted)
    is_duplicate_P = np.zeros(num_predicted, dtype=np.bool_)
    if num_predicted == 0 or num_targets == 0:
        return Match(target_P, iou_P, is_duplicate_P)

    iou_PG = box_iou(predicted, target, max_level=max_level)
    iou_PG[predicted.label_N[:, None] != target.label_N[None]] = 0.0
    iou_PG[~(predicted.is_present_N[:, None] & target.is_present_N[None])] = 0.0
    best_P = iou_PG.max(axis=1)
    chose_P = best_P > iou_threshold
    target_P[chose_P] = iou_PG.argmax(axis=1)[chose_P]
    iou_P[chose_P] = best_P[chose_P]
    for g in range(num_targets):
        choosers = np.flatnonzero(target_P == g)
        if len(choosers):
            is_duplicate_P[choosers] = True
            is_duplicate_P[choosers[iou_P[choosers].argmax()]] = False
    return Match(target_P, iou_P, is_duplicate_P)


def detection_reward(
    predicted: Boxes,
    target: Boxes,
    *,
    iou_threshold: float,
    class_weight_C: NDArray[np.float64],
    duplicate_penalty: float,
    max_level: int = 1000,
) -> float:
    """Reward of one sequence at one threshold: what it found, less what it found again.

    Every target that some box chose earns its class weight; every further box that chose it
    costs ``duplicate_penalty`` times that weight. Boxes that overlap nothing and targets that
    nobody found cost nothing; order and confidence (above 0) play no part.

    Args:
        predicted: the decoded sample, slots without a box included or not.
        target: the annotation in the same view, without crowd regions.
        iou_threshold: overlap to exceed, in (0, 1].
        class_weight_C: see ``class_weights``; all ones for the recall reward.
        duplicate_penalty: objects lost per duplicate, >= 0.
        max_level: coordinate levels per side, as in the codec.
    """
    match = match_boxes(predicted, target, iou_threshold=iou_threshold, max_level=max_level)
    found = np.unique(match.target_P[match.target_P >= 0])
    duplicated = match.target_P[match.is_duplicate_P]
    weight_G = class_weight_C[target.label_N]
    return float(weight_G[found].sum() - duplicate_penalty * weight_G[duplicated].sum())


def recall_reward(
    predicted: Boxes,
    target: Boxes,
    *,
    iou_thresholds: Sequence[float] = RECALL_THRESHOLDS,
    duplicate_penalty: float = 0.3,
    max_level: int = 1000,
) -> float:
    """Objects found less ``duplicate_penalty`` per duplicate, averaged over the thresholds."""
    check_thresholds(iou_thresholds)
    ones_C = np.ones(int(target.label_N.max(initial=0)) + 1)
    rewards = [
        detection_reward(
            predicted,
            target,
            iou_threshold=threshold,
            class_weight_C=ones_C,
            duplicate_penalty=duplicate_penalty,
            max_level=max_level,
        )
        for threshold in iou_thresholds
    ]
    return float(np.mean(rewards))
