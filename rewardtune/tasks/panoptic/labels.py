"""Maps of ids, or of (class, instance), to maps of labels: small numbers from 0.

Labels are looked up only where a map changes.

Axes: S samples, H height, W width, N pixels, G or P labels of a target or a prediction, L either,
K slots of a hash table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.kernel import compiled, plain
from rewardtune.tasks.panoptic.changes import changes_in, lowest_bit

_SIZES = ((2**8, np.uint8), (2**16, np.uint16))
"""Labels that a type of map has room for."""


def labels_of_ids(
    id_HW: NDArray[np.integer[Any]], id_G: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int64]]:
    """The place of each pixel's id in ``id_G``; all ids that are not in it get the place G.

    Args:
        id_HW: ids in 0 .. 2^32 - 1.
        id_G: each id once.

    Returns:
        The labels [H, W], uint8 if they fit and else uint16; the pixels of each [G + 1].

    Raises:
        ValueError: the map is not one of integers in that range, or there are too many ids.
    """
    if id_HW.ndim != 2 or id_HW.size == 0:
        raise ValueError(f"a map must be [H, W] and not empty, got {list(id_HW.shape)}")
    if len(id_G) >= _SIZES[-1][0]:
        raise ValueError(f"a map can have {_SIZES[-1][0] - 1} segments at most, got {len(id_G)}")
    label_HW: NDArray[np.unsignedinteger[Any]] = np.empty(
        id_HW.shape, dtype=np.uint8 if len(id_G) < _SIZES[0][0] else np.uint16
    )
    area_G = _label_ids(
        unsigned_map("id", id_HW, np.uint32).reshape(-1),
        plain(id_G, np.int64),
        label_HW.reshape(-1),
    )
    return label_HW, area_G


def labels_of_two_channels(
    class_SHW: NDArray[np.integer[Any]], instance_SHW: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.unsignedinteger[Any]], NDArray[np.int32]]:
    """Number the pairs of class and instance of each sample in order of appearance.

    Class 0 is void: all its pixels get label 0, whatever their instance.

    Returns:
        The labels [S, H, W], uint8 if they fit and else uint16, and the category (class - 1) of
        each label [S, P]; -1 for label 0 and where a sample has fewer labels than another.

    Raises:
        ValueError: shapes that differ, values that are not integers in 0 .. 2^31 - 1, or more
            than 65535 pairs in one sample.
    """
    if class_SHW.ndim != 3 or class_SHW.shape != instance_SHW.shape or class_SHW[:1].size == 0:
        raise ValueError(
            "class and instance maps must be [S, H, W] of one shape, got "
            f"{list(class_SHW.shape)} and {list(instance_SHW.shape)}"
        )
    rows = (len(class_SHW), -1)
    class_SN = unsigned_map("class", class_SHW, np.uint32).reshape(rows)
    instance_SN = unsigned_map("instance", instance_SHW, np.uint32).reshape(rows)
    for room, dtype in _SIZES:
        label_SHW: NDArray[np.unsignedinteger[Any]] = np.empty(class_SHW.shape, dtype=dtype)
        category_SP = np.full((len(class_SHW), room), -1, dtype=np.int32)
        num_labels, sample = _label_pairs(
            class_SN, instance_SN, label_SHW.reshape(rows), category_SP
        )
        if num_labels > 0:
            return label_SHW, np.ascontiguousarray(category_SP[:, :num_labels])
    raise ValueError(f"sample {sample} has more than {room - 1} segments: is it noise?")


def unsigned_map(
    name: str, map_XHW: NDArray[np.integer[Any]], dtype: type[np.unsignedinteger[Any]]
) -> NDArray[Any]:
    """A map of any integers in the type that a kernel takes; not copied where it need not be.

    Raises:
        ValueError: not integers, or out of the type's range.
    """
    if not np.issubdtype(map_XHW.dtype, np.integer):
        raise ValueError(f"the {name} map must be of integers, got {map_XHW.dtype}")
    if map_XHW.dtype.itemsize == np.dtype(dtype).itemsize and map_XHW.dtype.kind == "i":
        # The same bits; numbers below 0 are the ones above the middle of the unsigned range.
        if map_XHW.size and map_XHW.min() < 0:
            raise ValueError(f"the {name} map has {map_XHW.min()}: numbers must be 0 or more")
        return plain(map_XHW, map_XHW.dtype.type).view(dtype)
    if not np.can_cast(map_XHW.dtype, dtype) and map_XHW.size:
        low, high, highest = int(map_XHW.min()), int(map_XHW.max()), np.iinfo(dtype).max
        if low < 0 or high > highest:
            raise ValueError(f"the {name} map must be in 0..{highest}, got {low}..{high}")
    return plain(map_XHW, dtype)


@compiled
def _slot(identity: Any, num_slots: int) -> Any:
    # The middle bits of a product by an odd number: ids are often multiples of each other.
    return (identity * 2654435769 >> 12) & (num_slots - 1)


@compiled
def index_ids(id_L: NDArray[np.int64], slot_K: NDArray[np.int64]) -> None:
    """Fill an open hash table with the places of ids; ids below 0 pad and have none."""
    slot_K[:] = -1
    for label in range(len(id_L)):
        if id_L[label] >= 0:
            k = _slot(id_L[label], len(slot_K))
            while slot_K[k] >= 0:
                k = (k + 1) & (len(slot_K) - 1)
            slot_K[k] = label


@compiled
def label_of(
    identity: Any, id_L: NDArray[np.int64], slot_K: NDArray[np.int64], missing: int
) -> Any:
    """The place of an id, or ``missing`` if it has none."""
    k = _slot(identity, len(slot_K))
    while slot_K[k] >= 0:
        if id_L[slot_K[k]] == identity:
            return slot_K[k]
        k = (k + 1) & (len(slot_K) - 1)
    return missing


@compiled
def _label_ids(
    id_N: NDArray[np.uint32], id_G: NDArray[np.int64], label_N: NDArray[Any]
) -> NDArray[np.int64]:
    """Write the place of each pixel's id in ``id_G``; all unlisted ids get the place behind it.

    Returns:
        Number of pixels of each label [G + 1].
    """
    num_slots = 8
    while num_slots < 4 * len(id_G):
        num_slots *= 2
    slot_K = np.empty(num_slots, dtype=np.int64)
    index_ids(id_G, slot_K)
    area_G = np.zeros(len(id_G) + 1, dtype=np.int64)
    num_pixels, since, start = len(id_N), 0, 1
    label = label_of(np.int64(id_N[0]), id_G, slot_K, len(id_G))
    while start < num_pixels:
        if start + 64 <= num_pixels:
            changes, width = changes_in(id_N, start), 64
        else:
            changes, width = np.uint64(id_N[start] != id_N[start - 1]), 1
        while changes != np.uint64(0):
            here = start + lowest_bit(changes)
            changes &= changes - np.uint64(1)
            label_N[since:here] = label
            area_G[label] += here - since
            since = here
            label = label_of(np.int64(id_N[here]), id_G, slot_K, len(id_G))
        start += width
    label_N[since:] = label
    area_G[label] += num_pixels - since
    return area_G


@compiled
def _label_pairs(
    class_SN: NDArray[np.uint32],
    instance_SN: NDArray[np.uint32],
    label_SN: NDArray[Any],
    category_SP: NDArray[np.int32],
) -> tuple[int, int]:
    """Number the pairs of class and instance of each sample; class 0 is label 0.

    Returns:
        The number of labels of the sample that has most, or -1 if the tables are too small;
        that sample.
    """
    num_samples, num_pixels = class_SN.shape
    room = category_SP.shape[1]
    pair_P = np.zeros(room, dtype=np.int64)
    slot_K = np.empty(4 * room, dtype=np.int64)  # a power of 2, as room is one
    most, fullest = 1, 0
    for s in range(num_samples):
        slot_K[:] = -1
        used, since, start, label = 1, 0, 0, 0
        while start < num_pixels:
            if start == 0:
                changes, width = np.uint64(1), 1
            elif start + 64 <= num_pixels:
                changes = changes_in(class_SN[s], start) | changes_in(instance_SN[s], start)
                width = 64
            else:
                width = 1
                changes = np.uint64(
                    class_SN[s, start] != class_SN[s, start - 1]
                    or instance_SN[s, start] != instance_SN[s, start - 1]
                )
            while changes != np.uint64(0):
                here = start + lowest_bit(changes)
                changes &= changes - np.uint64(1)
                label_SN[s, since:here] = label
                since = here
                if class_SN[s, here] == 0:
                    label = 0
                else:
                    pair = (np.int64(class_SN[s, here]) << 32) | np.int64(instance_SN[s, here])
                    k = _slot(pair ^ (pair >> 29), len(slot_K))
                    while slot_K[k] >= 0 and pair_P[slot_K[k]] != pair:
                        k = (k + 1) & (len(slot_K) - 1)
                    label = slot_K[k]
                    if label < 0:
                        if used == room:
                            return -1, s
                        label, slot_K[k], pair_P[used] = used, used, pair
                        # Never below 0, which would be no segment, whatever the class.
                        category_SP[s, used] = min(int(class_SN[s, here]) - 1, 2147483647)
                        used += 1
            start += width
        label_SN[s, since:] = label
        if used > most:
            most, fullest = used, s
    return most, fullest
