"""Panoptic annotations in a view: what stage I encodes, and what rewards are held against.

Axes: H height, W width, C the three colours of a PNG.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Example
from rewardtune.datasets.frame import Frame, Framed
from rewardtune.datasets.images import decode_image
from rewardtune.tasks.panoptic.reward import PanopticTarget
from rewardtune.tasks.uvim.config import INSTANCES, SEMANTICS
from rewardtune.tasks.uvim.map_view import map_from_view, map_in_view


def segment_ids(example: Example) -> NDArray[np.int64]:
    """The id of the segment at each pixel of the image [H, W]; 0 where nobody annotated.

    Raises:
        ValueError: the example has no panoptic map, or one that cannot be read.
    """
    if not example.panoptic_png:
        raise ValueError(
            f"image {example.file_name} (id {example.image_id}) has no panoptic map: convert the "
            f"data set with --panoptic"
        )
    rgb_HWC = decode_image(example.panoptic_png).astype(np.int64)
    ids_HW: NDArray[np.int64] = rgb_HWC @ np.array([1, 256, 256**2])
    return ids_HW


def label_maps(framed: Framed) -> dict[str, NDArray[np.int32]]:
    """Classes and instance ids of the view, as stage I encodes them: each [H, W].

    A class is the category's index + 1. Every segment has an instance id, stuff and crowds too,
    from 1 in canonical order. Both are 0 where nothing is annotated.

    Source: big_vision pp/proj/uvim/pp_ops.py, ``coco_panoptic``.
    """
    example = framed.example
    ids_HW = map_in_view(segment_ids(example), framed.frame)
    listed = {segment.id: segment.category + 1 for segment in example.segments}
    found, place_HW = np.unique(ids_HW, return_inverse=True)
    place_HW = place_HW.reshape(ids_HW.shape)
    class_of = np.array([listed.get(identity, 0) for identity in found.tolist()], np.int32)
    semantics_HW = class_of[place_HW]
    instances_HW = canonical_ids(np.where(semantics_HW > 0, ids_HW, 0))
    return {SEMANTICS: semantics_HW, INSTANCES: instances_HW}


def canonical_ids(ids_HW: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Ids renumbered from 1 by their centres, top to bottom and then left to right; 0 stays.

    Source: big_vision pp/proj/uvim/pp_ops.py, ``make_canonical``.
    """
    found, place_N, area = np.unique(ids_HW, return_inverse=True, return_counts=True)
    place_HW = place_N.reshape(ids_HW.shape)
    row_HW, column_HW = np.indices(ids_HW.shape)
    centre_row = np.bincount(place_HW.ravel(), row_HW.ravel()) / area
    centre_column = np.bincount(place_HW.ravel(), column_HW.ravel()) / area
    key = len(ids_HW) * centre_row + centre_column
    key[found == 0] = -1.0
    number = np.empty(len(found), dtype=np.int32)
    number[np.argsort(key, kind="stable")] = np.arange(len(found))
    if found[0] != 0:
        number += 1
    canonical_HW: NDArray[np.int32] = number[place_HW]
    return canonical_HW


def panoptic_target(framed: Framed) -> PanopticTarget:
    """The annotation in the view, to score predictions against."""
    ids_HW = map_in_view(segment_ids(framed.example), framed.frame)
    return PanopticTarget.of(ids_HW, framed.example.segments)


def in_image(map_HW2: NDArray[np.int32], frame: Frame) -> NDArray[np.int32]:
    """A map of the view as a map of the example's image [H, W, 2]; void outside the view."""
    channels = [map_from_view(channel_HW, frame) for channel_HW in np.moveaxis(map_HW2, -1, 0)]
    return np.stack(channels, axis=-1)


def segments_of(
    map_HW2: NDArray[np.int32], *, is_thing_C: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], dict[int, int]]:
    """A map of (class, instance) as the official metric takes it.

    Each pair of a thing's class and an instance id is a segment; all pixels of a stuff class are
    one, whatever their ids; class 0 is void.

    Returns:
        The id of the segment at each pixel, 0 for void; and each id's category index.

    Source: panopticapi's ``converters/2channels2panoptic_coco_format.py``.
    """
    class_HW, instance_HW = map_HW2[..., 0].astype(np.int64), map_HW2[..., 1].astype(np.int64)
    # By class, so that the instance of a void pixel or of stuff makes no difference.
    is_thing_K = np.concatenate([[False], is_thing_C])
    pair_HW = class_HW * (int(instance_HW.max(initial=0)) + 1)
    pair_HW = pair_HW + np.where(is_thing_K[class_HW], instance_HW, 0)
    _, first, place_N = np.unique(pair_HW, return_index=True, return_inverse=True)
    class_N = class_HW.ravel()[first]
    number = np.where(class_N > 0, np.cumsum(class_N > 0), 0).astype(np.int64)
    ids_HW = number[place_N.reshape(class_HW.shape)]
    categories = {int(n): int(c) - 1 for n, c in zip(number, class_N, strict=True) if c > 0}
    return ids_HW, categories
