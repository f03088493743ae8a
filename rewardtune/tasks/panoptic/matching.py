"""Panoptic matching of whole batches at native speed: one compiled call, one thread.

Computes what ``definition.py`` defines. Two forms of maps:

- labels (uint8 or uint16): small numbers, each with a place in a table of categories. This is
  what rewards use; label 0 of a target is void, and category -1 is no segment.
- ids (32 bits, as in COCO's files), made labels on the fly; this is what the metric uses.

Axes: I targets, S predictions, H height, W width, G labels of a target, P labels of a
prediction, C categories. Tables are padded with category -1 (and id -1) to one length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.kernel import plain
from rewardtune.tasks.panoptic import kernel
from rewardtune.tasks.panoptic.labels import labels_of_ids, labels_of_two_channels, unsigned_map

NO_CATEGORY = -1
MAX_PAIRS = 2**26
"""Pairs of labels that a batch may have: their histogram takes four bytes each."""


class UnmatchableError(ValueError):
    """One prediction of a batch does not fit its target or its own table."""

    def __init__(self, sample: int, problem: str) -> None:
        super().__init__(f"sample {sample}: {problem}")
        self.problem = problem


@dataclass(frozen=True, slots=True, eq=False)
class TargetTable:
    """What the labels of each target mean; label 0 is void."""

    category_IG: NDArray[np.int32]
    """-1: no segment, but not void either, except for label 0."""
    is_crowd_IG: NDArray[np.bool_]
    area_IG: NDArray[np.float64]
    """In pixels; need not be what is painted."""

    def __post_init__(self) -> None:
        shape = self.category_IG.shape
        if len(shape) != 2 or shape[1] == 0:
            raise ValueError(f"category_IG must be [I, G] with G >= 1, got {list(shape)}")
        if self.is_crowd_IG.shape != shape or self.area_IG.shape != shape:
            raise ValueError(
                f"is_crowd_IG and area_IG must be {list(shape)} as category_IG, got "
                f"{list(self.is_crowd_IG.shape)} and {list(self.area_IG.shape)}"
            )
        if not np.all(np.isfinite(self.area_IG)):
            raise ValueError("areas must be finite numbers")


@dataclass(frozen=True, slots=True, eq=False)
class BatchCounts:
    """How the segments of each category fared in each prediction."""

    matched_iou_SC: NDArray[np.float64]
    true_positives_SC: NDArray[np.int32]
    false_positives_SC: NDArray[np.int32]
    false_negatives_SC: NDArray[np.int32]


def match_labels(
    target_label_IHW: NDArray[np.integer[Any]],
    target: TargetTable,
    predicted_label_SHW: NDArray[np.integer[Any]],
    predicted_category_SP: NDArray[np.integer[Any]],
    image_S: NDArray[np.integer[Any]],
    *,
    is_merged_C: NDArray[np.bool_],
) -> BatchCounts:
    """Match every prediction with the target of its image.

    Fastest where both maps are uint8. A label of the prediction without pixels is no segment.

    Args:
        target_label_IHW: labels below G.
        predicted_label_SHW: labels below P, as large as the targets.
        predicted_category_SP: category of each label of each prediction; below 0: no segment.
        image_S: index of each prediction's target.
        is_merged_C: categories of which all predicted labels together are one segment (stuff).

    Raises:
        UnmatchableError: a label that its table does not list, an unknown category, or a listed
            area so small that a union is empty.
        ValueError: shapes, types or ranges that do not fit; names the argument.
    """
    _check_batch(target_label_IHW, target, predicted_label_SHW, predicted_category_SP, image_S)
    _check_categories(target, is_merged_C)
    dtype: type[np.unsignedinteger[Any]] = np.uint8
    if target_label_IHW.dtype != np.uint8 or predicted_label_SHW.dtype != np.uint8:
        dtype = np.uint16
    iou_SC, count_S3C, sample, problem, place = kernel.match_label_maps(
        _rows("target", target_label_IHW, dtype),
        plain(target.category_IG, np.int32),
        plain(target.is_crowd_IG, np.bool_),
        plain(target.area_IG, np.float64),
        _rows("predicted", predicted_label_SHW, dtype),
        plain(predicted_category_SP, np.int32),
        plain(image_S, np.int64),
        plain(is_merged_C, np.bool_),
    )
    if problem == kernel.UNKNOWN_LABEL:
        labels = [
            int(map_HW.reshape(-1)[place])
            for map_HW in (target_label_IHW[image_S[sample]], predicted_label_SHW[sample])
        ]
        raise UnmatchableError(
            sample,
            f"the target has label {labels[0]} and the prediction {labels[1]} at "
            f"pixel {place}, but their tables list {target.category_IG.shape[1]} and "
            f"{predicted_category_SP.shape[1]} labels",
        )
    if problem == kernel.EMPTY_UNION:
        area = target.area_IG[image_S[sample], place]
        raise UnmatchableError(
            sample, f"target label {place} has area {area:g}: far less than is painted"
        )
    if problem == kernel.UNKNOWN_CATEGORY:
        raise UnmatchableError(
            sample,
            f"label {place} has category {predicted_category_SP[sample, place]}: "
            f"there are only {len(is_merged_C)}",
        )
    return _counts(iou_SC, count_S3C)


def match_ids(
    target_id_IHW: NDArray[np.integer[Any]],
    target_id_IG: NDArray[np.integer[Any]],
    target: TargetTable,
    predicted_id_SHW: NDArray[np.integer[Any]],
    predicted_id_SP: NDArray[np.integer[Any]],
    predicted_category_SP: NDArray[np.integer[Any]],
    image_S: NDArray[np.integer[Any]],
    *,
    is_merged_C: NDArray[np.bool_],
) -> BatchCounts:
    """As ``match_labels`` for maps of ids in 0 .. 2^32 - 1, by the official rules.

    Args:
        target_id_IG: id of each place of the table; the first is 0 (void), and no other.
            Painted ids that are not in it are no segments and not void.
        predicted_id_SP: as ``target_id_IG``; all painted ids but 0 must be in it, and all ids
            with a category must be painted.

    Raises:
        UnmatchableError: a predicted segment painted but not listed, listed but not painted, or
            of unknown category, or a listed area so small that a union is empty.
        ValueError: shapes, types or ranges that do not fit; names the argument.
    """
    _check_batch(target_id_IHW, target, predicted_id_SHW, predicted_category_SP, image_S)
    _check_categories(target, is_merged_C)
    _check_ids("target", target_id_IG, target.category_IG.shape)
    _check_ids("predicted", predicted_id_SP, predicted_category_SP.shape)
    iou_SC, count_S3C, sample, problem, place = kernel.match_id_maps(
        _rows("target", target_id_IHW, np.uint32),
        plain(target_id_IG, np.int64),
        plain(target.category_IG, np.int32),
        plain(target.is_crowd_IG, np.bool_),
        plain(target.area_IG, np.float64),
        _rows("predicted", predicted_id_SHW, np.uint32),
        plain(predicted_id_SP, np.int64),
        plain(predicted_category_SP, np.int32),
        plain(image_S, np.int64),
        plain(is_merged_C, np.bool_),
    )
    if problem == kernel.UNKNOWN_LABEL:
        identity = predicted_id_SHW[sample].reshape(-1)[place]
        raise UnmatchableError(sample, f"predicted segment {identity} is painted but not listed")
    if problem == kernel.UNPAINTED_SEGMENT:
        raise UnmatchableError(
            sample, f"predicted segment {predicted_id_SP[sample, place]} is listed but not painted"
        )
    if problem == kernel.EMPTY_UNION:
        i = image_S[sample]
        raise UnmatchableError(
            sample,
            f"segment {target_id_IG[i, place]} has area "
            f"{target.area_IG[i, place]:g}: far less than is painted",
        )
    if problem == kernel.UNKNOWN_CATEGORY:
        raise UnmatchableError(
            sample,
            f"segment {predicted_id_SP[sample, place]} has category "
            f"{predicted_category_SP[sample, place]}: there are only {len(is_merged_C)}",
        )
    return _counts(iou_SC, count_S3C)


def warm_up() -> None:
    """Compile all kernels of the task (once per machine; later read from numba's cache)."""
    none_11 = np.full((1, 1), NO_CATEGORY, dtype=np.int32)
    table = TargetTable(none_11, np.zeros((1, 1), np.bool_), np.zeros((1, 1)))
    first_S, zero_11 = np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    is_merged_C = np.zeros(1, np.bool_)
    for dtype in (np.uint8, np.uint16):
        map_111 = np.zeros((1, 1, 1), dtype=dtype)
        match_labels(map_111, table, map_111, none_11, first_S, is_merged_C=is_merged_C)
    map_111 = np.zeros((1, 1, 1), dtype=np.uint32)
    labels_of_ids(map_111[0], first_S)
    labels_of_ids(map_111[0], np.arange(256))
    labels_of_two_channels(map_111, map_111)
    match_ids(map_111, zero_11, table, map_111, zero_11, none_11, first_S, is_merged_C=is_merged_C)


def _check_batch(
    target_IHW: NDArray[Any],
    target: TargetTable,
    predicted_SHW: NDArray[Any],
    predicted_category_SP: NDArray[Any],
    image_S: NDArray[Any],
) -> None:
    for name, maps in (("target", target_IHW), ("predicted", predicted_SHW)):
        if maps.ndim != 3 or not np.issubdtype(maps.dtype, np.integer):
            raise ValueError(
                f"{name} maps must be integers [*, H, W], got {maps.dtype} {list(maps.shape)}"
            )
    size = target_IHW.shape[1:]
    if predicted_SHW.shape[1:] != size or 0 in size or target_IHW[:1].size >= 2**31:
        raise ValueError(
            f"target maps are {list(size)} and predicted maps {list(predicted_SHW.shape[1:])} "
            "pixels: both must be of one size, not empty and below 2^31"
        )
    if len(target.category_IG) != len(target_IHW):
        raise ValueError(
            f"there are {len(target_IHW)} target maps but tables for {len(target.category_IG)}"
        )
    num_samples = len(predicted_SHW)
    shape = predicted_category_SP.shape
    if len(shape) != 2 or shape[0] != num_samples or shape[1] == 0:
        raise ValueError(
            f"predicted_category_SP must be [{num_samples}, P] with P >= 1, got {list(shape)}"
        )
    if not np.issubdtype(predicted_category_SP.dtype, np.integer):
        raise ValueError(f"categories must be integers, got {predicted_category_SP.dtype}")
    if image_S.shape != (num_samples,):
        raise ValueError(
            f"image_S must name one target per prediction ({num_samples}), got shape "
            f"{list(image_S.shape)}"
        )
    if num_samples and not 0 <= image_S.min() <= image_S.max() < len(target_IHW):
        raise ValueError(f"image_S must be in 0..{len(target_IHW) - 1}, got {image_S.tolist()}")
    if (target.category_IG.shape[1] + 1) * shape[1] > MAX_PAIRS:
        raise ValueError(
            f"{target.category_IG.shape[1]} target labels and {shape[1]} predicted ones make more "
            f"than {MAX_PAIRS} pairs: a prediction of noise?"
        )


def _check_categories(target: TargetTable, is_merged_C: NDArray[Any]) -> None:
    if is_merged_C.ndim != 1 or target.category_IG.max(initial=NO_CATEGORY) >= len(is_merged_C):
        raise ValueError(
            f"target categories must be below {len(is_merged_C)}, got "
            f"{np.unique(target.category_IG)[-4:].tolist()}"
        )


def _check_ids(name: str, id_LN: NDArray[Any], shape: tuple[int, ...]) -> None:
    if id_LN.shape != shape or not np.issubdtype(id_LN.dtype, np.integer):
        raise ValueError(
            f"{name} ids must be integers {list(shape)}, got {id_LN.dtype} {list(id_LN.shape)}"
        )
    if np.any(id_LN[:, 0] != 0):
        raise ValueError(f"the first of the {name} ids must be 0, void, got {id_LN[:, 0].tolist()}")


def _rows(
    name: str, map_NHW: NDArray[np.integer[Any]], dtype: type[np.unsignedinteger[Any]]
) -> NDArray[Any]:
    num_pixels = map_NHW.shape[1] * map_NHW.shape[2]
    return unsigned_map(name, map_NHW, dtype).reshape(len(map_NHW), num_pixels)


def _counts(iou_SC: NDArray[np.float64], count_S3C: NDArray[np.int32]) -> BatchCounts:
    return BatchCounts(iou_SC, count_S3C[:, 0], count_S3C[:, 1], count_S3C[:, 2])
