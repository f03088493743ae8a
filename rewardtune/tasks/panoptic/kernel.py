"""Matching two maps in one pass over their pixels; what ``matching.py`` calls.

Maps are constant over long stretches, so the pass looks for the places where one of the two
changes, 64 pixels at a time with vector compares, and adds whole runs to the histogram of pairs
of labels. Noise costs one addition per pixel, ten times a real map, and no more. What follows
the histogram takes a few steps per pair of segments.

What is called from ``changes.py`` and ``labels.py`` is compiled into these kernels, and numba's
cache does not see it change: see the note in ``changes.py``.

Axes: N pixels of a map, G labels of a target, P labels of a prediction, C categories, I targets,
S predictions, K slots of a hash table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.kernel import compiled
from rewardtune.tasks.panoptic.changes import changes_in, lowest_bit
from rewardtune.tasks.panoptic.labels import index_ids, label_of

# What a kernel found wrong with a pair of maps, beside the label or id in question.
FINE = 0
UNKNOWN_LABEL = 1
UNPAINTED_SEGMENT = 2
EMPTY_UNION = 3
UNKNOWN_CATEGORY = 4


@compiled
def _count_labels(
    target_N: NDArray[Any],
    predicted_N: NDArray[Any],
    size_GP: NDArray[np.int32],
    num_targets: int,
    num_predicted: int,
) -> int:
    """Add the pixels of each pair of labels; the first pixel of an unknown label, or -1."""
    num_pixels = len(target_N)
    g, p, since = np.intp(target_N[0]), np.intp(predicted_N[0]), 0
    if g >= num_targets or p >= num_predicted:
        return 0
    start = 1
    while start < num_pixels:
        if start + 64 <= num_pixels:
            changes = changes_in(target_N, start) | changes_in(predicted_N, start)
            width = 64
        else:
            width, changes = 1, np.uint64(0)
            if target_N[start] != target_N[start - 1] or (
                predicted_N[start] != predicted_N[start - 1]
            ):
                changes = np.uint64(1)
        while changes != np.uint64(0):
            here = start + lowest_bit(changes)
            changes &= changes - np.uint64(1)
            size_GP[np.uintp(g), np.uintp(p)] += np.int32(here - since)
            since = here
            g = np.intp(target_N[np.uintp(here)])
            p = np.intp(predicted_N[np.uintp(here)])
            if g >= num_targets or p >= num_predicted:
                return here
        start += width
    size_GP[g, p] += np.int32(num_pixels - since)
    return -1


@compiled
def _count_ids(
    target_N: NDArray[np.uint32],
    predicted_N: NDArray[np.uint32],
    size_GP: NDArray[np.int32],
    target_id_G: NDArray[np.int64],
    target_slot_K: NDArray[np.int64],
    predicted_id_P: NDArray[np.int64],
    predicted_slot_K: NDArray[np.int64],
) -> int:
    """As ``_count_labels`` for maps of ids; unlisted ids of the target share the last row."""
    num_pixels = len(target_N)
    unlisted = len(target_id_G)
    g = label_of(np.int64(target_N[0]), target_id_G, target_slot_K, unlisted)
    p = label_of(np.int64(predicted_N[0]), predicted_id_P, predicted_slot_K, -1)
    if p < 0:
        return 0
    since, start = 0, 1
    while start < num_pixels:
        if start + 64 <= num_pixels:
            target_changes = changes_in(target_N, start)
            predicted_changes = changes_in(predicted_N, start)
            width = 64
        else:
            width = 1
            target_changes = np.uint64(target_N[start] != target_N[start - 1])
            predicted_changes = np.uint64(predicted_N[start] != predicted_N[start - 1])
        changes = target_changes | predicted_changes
        while changes != np.uint64(0):
            lowest = lowest_bit(changes)
            here = start + lowest
            changes &= changes - np.uint64(1)
            size_GP[np.uintp(g), np.uintp(p)] += np.int32(here - since)
            since = here
            if (target_changes >> np.uint64(lowest)) & np.uint64(1):
                identity = np.int64(target_N[np.uintp(here)])
                g = label_of(identity, target_id_G, target_slot_K, unlisted)
            if (predicted_changes >> np.uint64(lowest)) & np.uint64(1):
                identity = np.int64(predicted_N[np.uintp(here)])
                p = label_of(identity, predicted_id_P, predicted_slot_K, -1)
                if p < 0:
                    return here
        start += width
    size_GP[np.uintp(g), np.uintp(p)] += np.int32(num_pixels - since)
    return -1


@compiled
def _count_segments(
    size_GP: NDArray[np.int32],
    target_category_G: NDArray[np.int32],
    is_crowd_G: NDArray[np.bool_],
    target_area_G: NDArray[np.float64],
    predicted_category_P: NDArray[np.int32],
    is_merged_C: NDArray[np.bool_],
    must_be_painted: bool,
    label_C: NDArray[np.int32],
    area_P: NDArray[np.int64],
    is_matched_P: NDArray[np.bool_],
    iou_C: NDArray[np.float64],
    count_3C: NDArray[np.int32],
) -> tuple[int, int]:
    """Turn the histogram of one pair of maps into counts; row 0 of it is void.

    ``label_C``, ``area_P`` and ``is_matched_P`` are room to work in; ``label_C`` is all -1
    before and after.

    Returns:
        What is wrong, and with which label.
    """
    num_listed, num_rows, num_predicted = len(target_category_G), len(size_GP), size_GP.shape[1]
    num_categories = len(iou_C)
    for p in range(num_predicted):
        c = predicted_category_P[p]
        if c >= num_categories:
            return UNKNOWN_CATEGORY, p
        if c >= 0 and is_merged_C[c]:
            first = label_C[c]
            if first < 0:
                label_C[c] = p
            else:
                for g in range(num_rows):
                    size_GP[g, first] += size_GP[g, p]
                    size_GP[g, p] = 0
    for p in range(num_predicted):
        if predicted_category_P[p] >= 0:
            label_C[predicted_category_P[p]] = -1

    area_P[:] = 0
    is_matched_P[:] = False
    for g in range(num_rows):
        for p in range(num_predicted):
            area_P[p] += size_GP[g, p]
    if must_be_painted:
        for p in range(num_predicted):
            if predicted_category_P[p] >= 0 and area_P[p] == 0:
                return UNPAINTED_SEGMENT, p

    for g in range(num_listed):
        c = target_category_G[g]
        if c < 0:
            continue
        if is_crowd_G[g]:
            label_C[c] = g  # of several crowds of a category the last one counts
            continue
        is_matched = False
        for p in range(num_predicted):
            intersection = size_GP[g, p]
            if intersection > 0 and predicted_category_P[p] == c:
                union = area_P[p] + target_area_G[g] - intersection - size_GP[0, p]
                if union == 0.0:
                    return EMPTY_UNION, g
                iou = intersection / union
                if iou > 0.5:
                    # Stale areas let a segment match twice; each match counts, as officially.
                    iou_C[c] += iou
                    count_3C[0, c] += 1
                    is_matched = True
                    is_matched_P[p] = True
        if not is_matched:
            count_3C[2, c] += 1

    for p in range(num_predicted):
        c = predicted_category_P[p]
        if c >= 0 and area_P[p] > 0 and not is_matched_P[p]:
            excused = size_GP[0, p]
            if label_C[c] >= 0:
                excused += size_GP[label_C[c], p]
            if not excused / area_P[p] > 0.5:
                count_3C[1, c] += 1
    for g in range(num_listed):
        if target_category_G[g] >= 0:
            label_C[target_category_G[g]] = -1
    return FINE, 0


@compiled
def match_label_maps(
    target_IN: NDArray[Any],
    target_category_IG: NDArray[np.int32],
    is_crowd_IG: NDArray[np.bool_],
    target_area_IG: NDArray[np.float64],
    predicted_SN: NDArray[Any],
    predicted_category_SP: NDArray[np.int32],
    image_S: NDArray[np.int64],
    is_merged_C: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int32], int, int, int]:
    """Match maps of labels, which are places in the tables of categories.

    Returns:
        Matched IoU [S, C]; true positives, false positives and false negatives [S, 3, C]; the
        first sample with a problem, the problem, and the label or pixel where it is.
    """
    num_samples, num_predicted = predicted_category_SP.shape
    num_targets, num_categories = target_category_IG.shape[1], len(is_merged_C)
    iou_SC = np.zeros((num_samples, num_categories))
    count_S3C = np.zeros((num_samples, 3, num_categories), dtype=np.int32)
    size_GP = np.zeros((num_targets, num_predicted), dtype=np.int32)
    label_C = np.full(num_categories, -1, dtype=np.int32)
    area_P = np.zeros(num_predicted, dtype=np.int64)
    is_matched_P = np.zeros(num_predicted, dtype=np.bool_)
    for s in range(num_samples):
        i = image_S[s]
        size_GP[:] = 0
        wrong = _count_labels(target_IN[i], predicted_SN[s], size_GP, num_targets, num_predicted)
        if wrong >= 0:
            return iou_SC, count_S3C, s, UNKNOWN_LABEL, wrong
        problem, label = _count_segments(
            size_GP,
            target_category_IG[i],
            is_crowd_IG[i],
            target_area_IG[i],
            predicted_category_SP[s],
            is_merged_C,
            False,
            label_C,
            area_P,
            is_matched_P,
            iou_SC[s],
            count_S3C[s],
        )
        if problem != FINE:
            return iou_SC, count_S3C, s, problem, label
    return iou_SC, count_S3C, -1, FINE, 0


@compiled
def match_id_maps(
    target_IN: NDArray[np.uint32],
    target_id_IG: NDArray[np.int64],
    target_category_IG: NDArray[np.int32],
    is_crowd_IG: NDArray[np.bool_],
    target_area_IG: NDArray[np.float64],
    predicted_SN: NDArray[np.uint32],
    predicted_id_SP: NDArray[np.int64],
    predicted_category_SP: NDArray[np.int32],
    image_S: NDArray[np.int64],
    is_merged_C: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int32], int, int, int]:
    """As ``match_label_maps`` for maps of any ids; every listed prediction must be painted.

    The first id of each list is 0, void.
    """
    num_samples, num_predicted = predicted_category_SP.shape
    num_targets, num_categories = target_category_IG.shape[1], len(is_merged_C)
    iou_SC = np.zeros((num_samples, num_categories))
    count_S3C = np.zeros((num_samples, 3, num_categories), dtype=np.int32)
    size_GP = np.zeros((num_targets + 1, num_predicted), dtype=np.int32)
    label_C = np.full(num_categories, -1, dtype=np.int32)
    area_P = np.zeros(num_predicted, dtype=np.int64)
    is_matched_P = np.zeros(num_predicted, dtype=np.bool_)
    num_target_slots, num_predicted_slots = 8, 8
    while num_target_slots < 4 * num_targets:
        num_target_slots *= 2
    while num_predicted_slots < 4 * num_predicted:
        num_predicted_slots *= 2
    target_slot_K = np.empty(num_target_slots, dtype=np.int64)
    predicted_slot_K = np.empty(num_predicted_slots, dtype=np.int64)
    indexed = -1
    for s in range(num_samples):
        i = image_S[s]
        if i != indexed:
            index_ids(target_id_IG[i], target_slot_K)
            indexed = i
        index_ids(predicted_id_SP[s], predicted_slot_K)
        size_GP[:] = 0
        wrong = _count_ids(
            target_IN[i],
            predicted_SN[s],
            size_GP,
            target_id_IG[i],
            target_slot_K,
            predicted_id_SP[s],
            predicted_slot_K,
        )
        if wrong >= 0:
            return iou_SC, count_S3C, s, UNKNOWN_LABEL, wrong
        problem, label = _count_segments(
            size_GP,
            target_category_IG[i],
            is_crowd_IG[i],
            target_area_IG[i],
            predicted_category_SP[s],
            is_merged_C,
            True,
            label_C,
            area_P,
            is_matched_P,
            iou_SC[s],
            count_S3C[s],
        )
        if problem != FINE:
            return iou_SC, count_S3C, s, problem, label
    return iou_SC, count_S3C, -1, FINE, 0
