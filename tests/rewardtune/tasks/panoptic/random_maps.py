"""Random annotated and predicted maps, for properties that must hold for all of them.

Axes: H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment

NUM_CATEGORIES = 4


@dataclass(frozen=True)
class Scene:
    """An annotation and a prediction of one image."""

    target_id_HW: NDArray[np.int64]
    target: list[Segment]
    predicted_id_HW: NDArray[np.int64]
    predicted: dict[int, int]


def blocks(
    rng: np.random.Generator, ids: NDArray[np.int64], *, size: tuple[int, int], kind: str
) -> NDArray[np.int64]:
    """A map of some of the ids: all void, noise, or rectangles over each other."""
    if kind == "void" or len(ids) == 0:
        return np.zeros(size, dtype=np.int64)
    if kind == "noise":
        return np.append(ids, 0)[rng.integers(len(ids) + 1, size=size)]
    map_HW = np.zeros(size, dtype=np.int64)
    for identity in ids:
        top, left = rng.integers(size[0]), rng.integers(size[1])
        height, width = rng.integers(1, size[0] + 1), rng.integers(1, size[1] + 1)
        map_HW[top : top + height, left : left + width] = identity
    return map_HW


def scene(seed: int, *, kind: str, predicted_kind: str, max_id: int, num: int) -> Scene:
    """Segments with crowds, listed but not painted ones, unlisted ones and stale areas."""
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 24)), int(rng.integers(1, 24)))
    ids = rng.permutation(np.unique(rng.integers(1, max_id, size=num)))
    target_HW = blocks(rng, ids, size=size, kind=kind)
    target = [
        Segment(
            id=int(identity),
            category=int(rng.integers(NUM_CATEGORIES)),
            area=max(1, int((target_HW == identity).sum()) + int(rng.choice([0, 0, 0, 2]))),
            is_crowd=bool(rng.random() < 0.25),
        )
        for identity in rng.permutation(ids)
        if rng.random() < 0.9
    ]
    if predicted_kind == "alike":
        # Most pixels as annotated, so that pairs match.
        predicted_HW = np.where(rng.random(size) < 0.9, target_HW, 0)
        predicted_HW = np.roll(predicted_HW, rng.integers(-1, 2), axis=1)
    else:
        others = rng.permutation(np.unique(rng.integers(1, max_id, size=num)))
        predicted_HW = blocks(rng, others, size=size, kind=predicted_kind)
    category_of = {segment.id: segment.category for segment in target}
    predicted = {
        int(identity): category_of[identity]
        if identity in category_of and rng.random() < 0.9
        else int(rng.integers(NUM_CATEGORIES))
        for identity in np.unique(predicted_HW)
        if identity != 0
    }
    return Scene(target_HW, target, predicted_HW, predicted)


def scenes(*, max_id: int = 2**24) -> st.SearchStrategy[Scene]:
    return st.builds(
        scene,
        st.integers(0, 2**32),
        kind=st.sampled_from(["blocks", "blocks", "noise", "void"]),
        predicted_kind=st.sampled_from(["alike", "alike", "blocks", "noise", "void"]),
        max_id=st.just(max_id),
        num=st.integers(0, 12),
    )


def as_labels(drawn: Scene) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The prediction as a map of labels and the category of each; 0 is void."""
    ids = [0, *drawn.predicted]
    label_HW = np.zeros(drawn.predicted_id_HW.shape, dtype=np.uint8)
    for label, identity in enumerate(ids):
        label_HW[drawn.predicted_id_HW == identity] = label
    return label_HW, np.array([-1, *drawn.predicted.values()], dtype=np.int32)


def recounted(drawn: Scene) -> list[Segment]:
    """The annotated segments that are painted, with their painted areas."""
    return [
        Segment(s.id, s.category, int((drawn.target_id_HW == s.id).sum()), s.is_crowd)
        for s in drawn.target
        if np.any(drawn.target_id_HW == s.id)
    ]


def merge_stuff(drawn: Scene, is_thing_C: NDArray[np.bool_]) -> Scene:
    """All of a stuff category under one id, as the official converter does."""
    first: dict[int, int] = {}
    merged_HW, merged = drawn.predicted_id_HW.copy(), dict[int, Any]()
    for identity, category in drawn.predicted.items():
        kept = identity if is_thing_C[category] else first.setdefault(category, identity)
        merged_HW[drawn.predicted_id_HW == identity] = kept
        merged[kept] = category
    return Scene(drawn.target_id_HW, drawn.target, merged_HW, merged)
