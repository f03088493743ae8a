"""The reward of panoptic segmentation, per sample, in the view that the policy saw.

The paper's: the overlaps of matched segments, less 0.3 for every predicted segment that matches
nothing. It is not published as code; this is how we read it. Matching follows the official
metric with its rules for void and crowds, at the view's resolution, with areas counted there; all
of a stuff category is one segment, as in the official converter; class 0 is no segment; segments
that nobody found cost nothing.

Unit: segments. 0 for an empty prediction, the number of annotated segments for a perfect one.

Axes: S samples, H height, W width, P labels of a prediction, G labels of a target, C categories.
Source: Pinto et al. 2023, arXiv:2302.08242.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import VOID
from rewardtune.tasks.panoptic.labels import labels_of_ids, labels_of_two_channels
from rewardtune.tasks.panoptic.matching import NO_CATEGORY, TargetTable, match_labels

FALSE_POSITIVE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class PanopticTarget:
    """The annotation of one example in one view, prepared once to score many samples against."""

    label_HW: NDArray[np.unsignedinteger[Any]]
    """uint8 (uint16 for more than 255 segments); 0 is void."""
    table: TargetTable
    """One row: what the labels mean, with areas counted in the view."""

    @staticmethod
    def of(id_HW: NDArray[np.integer[Any]], segments: Sequence[Segment]) -> PanopticTarget:
        """From a map of ids in the view and the example's segments.

        Segments of which the view shows nothing are left out; ids that are painted but not listed
        are no segments, and not void.

        Raises:
            ValueError: the map is not one of integers in 0 .. 2^32 - 1, or a segment's id is 0.
        """
        # Of an id listed twice the last counts, in the place of the first, as officially.
        listed = {segment.id: segment for segment in segments}
        if VOID in listed:
            raise ValueError(f"a segment has id {VOID}, which means void: give it another")
        label_HW, area_G = labels_of_ids(id_HW, np.array([VOID, *listed]))
        category_G = np.array([NO_CATEGORY, *(s.category for s in listed.values()), NO_CATEGORY])
        category_G[area_G == 0] = NO_CATEGORY
        is_crowd_G = np.array([False, *(s.is_crowd for s in listed.values()), False])
        return PanopticTarget(
            label_HW=label_HW,
            table=TargetTable(
                category_IG=category_G.astype(np.int32)[None],
                is_crowd_IG=is_crowd_G[None],
                area_IG=area_G.astype(np.float64)[None],
            ),
        )

    @property
    def num_segments(self) -> int:
        """Annotated segments that the view shows; crowds left out."""
        return int(np.sum((self.table.category_IG >= 0) & ~self.table.is_crowd_IG))


@dataclass(frozen=True, slots=True, eq=False)
class PanopticReward:
    """The reward of each sample and what it is made of."""

    reward_S: NDArray[np.float64]
    matched_iou_S: NDArray[np.float64]
    true_positives_S: NDArray[np.int64]
    false_positives_S: NDArray[np.int64]
    false_negatives_S: NDArray[np.int64]


def panoptic_reward(
    predicted_label_SHW: NDArray[np.integer[Any]],
    predicted_category_SP: NDArray[np.integer[Any]],
    target: PanopticTarget,
    *,
    is_thing_C: NDArray[np.bool_],
    false_positive_weight: float = FALSE_POSITIVE_WEIGHT,
) -> PanopticReward:
    """Score the samples of one example.

    Args:
        predicted_label_SHW: instance of each pixel, below P; as large as the target. Fastest as
            uint8.
        predicted_category_SP: category of each instance, as an index into the data set's
            categories; -1: no segment.
        is_thing_C: False for stuff, whose instances of one category are one segment.
        false_positive_weight: segments lost per predicted segment that matches nothing, >= 0.

    Raises:
        ValueError: maps or tables that do not fit; names what was expected.
    """
    if not (np.isfinite(false_positive_weight) and false_positive_weight >= 0):
        raise ValueError(f"false_positive_weight must be >= 0, got {false_positive_weight}")
    if is_thing_C.dtype != np.bool_ or is_thing_C.ndim != 1:
        raise ValueError(
            f"is_thing_C must be booleans [C], got {is_thing_C.dtype} {list(is_thing_C.shape)}"
        )
    counts = match_labels(
        target.label_HW[None],
        target.table,
        predicted_label_SHW,
        predicted_category_SP,
        np.zeros(len(predicted_label_SHW), dtype=np.int64),
        is_merged_C=~is_thing_C,
    )
    matched_iou_S = counts.matched_iou_SC.sum(axis=1)
    false_positives_S = counts.false_positives_SC.sum(axis=1)
    return PanopticReward(
        reward_S=matched_iou_S - false_positive_weight * false_positives_S,
        matched_iou_S=matched_iou_S,
        true_positives_S=counts.true_positives_SC.sum(axis=1),
        false_positives_S=false_positives_S,
        false_negatives_S=counts.false_negatives_SC.sum(axis=1),
    )


def panoptic_reward_of_two_channels(
    class_SHW: NDArray[np.integer[Any]],
    instance_SHW: NDArray[np.integer[Any]],
    target: PanopticTarget,
    *,
    is_thing_C: NDArray[np.bool_],
    false_positive_weight: float = FALSE_POSITIVE_WEIGHT,
) -> PanopticReward:
    """As ``panoptic_reward`` for maps of (class, instance), UViM's output form.

    Args:
        class_SHW: 0 is void, class k is category k - 1.
        instance_SHW: any numbers >= 0; a segment is one pair of thing class and instance.
    """
    label_SHW, category_SP = labels_of_two_channels(class_SHW, instance_SHW)
    return panoptic_reward(
        label_SHW,
        category_SP,
        target,
        is_thing_C=is_thing_C,
        false_positive_weight=false_positive_weight,
    )
