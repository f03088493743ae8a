"""Confidence against overlap, on boxes small enough to check by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rewardtune.datasets.example import Example
from studies.confidence_iou import against_overlap, best_overlaps, draw
from tests.rewardtune.tasks.uvim.small import CATEGORIES, Examples


def scene(image_id: int, boxes: list[tuple[int, list[float]]]) -> Example:
    n = len(boxes)
    return Example(
        image_id=image_id,
        file_name=f"{image_id}.png",
        height=20,
        width=20,
        image=b"",
        xywh_N4=np.array([xywh for _, xywh in boxes]).reshape(n, 4),
        category_N=np.array([category for category, _ in boxes], dtype=np.int64),
        area_N=np.ones(n),
        is_crowd_N=np.zeros(n, dtype=np.bool_),
        annotation_id_N=np.arange(n),
    )


def record(image_id: int, category: int, bbox: list[float]) -> dict[str, Any]:
    category_id = CATEGORIES[category].id
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": 0.5}


def test_a_box_is_held_against_the_best_of_its_class_unless_that_was_found() -> None:
    scenes = Examples(
        [
            scene(7, [(0, [0, 0, 10, 10]), (0, [0, 0, 10, 4]), (1, [2, 0, 10, 10])]),
            scene(8, [(1, [0, 0, 10, 10])]),
        ]
    )
    found = best_overlaps(
        [
            record(7, 0, [0, 0, 10, 5]),  # 4/5 of the second, 1/2 of the first
            record(7, 1, [0, 0, 10, 10]),
            record(7, 0, [0, 0, 10, 4]),  # finds the second again, however well
            record(7, 0, [0, 0, 10, 9]),
            record(8, 0, [0, 0, 10, 10]),
            record(8, 1, [10, 10, 5, 5]),
        ],
        scenes,
    )
    assert found == pytest.approx([0.8, 8 / 12, 0.0, 0.9, 0.0, 0.0])


def test_confidences_that_are_the_overlaps_have_no_error() -> None:
    overlap_N = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    found = against_overlap(overlap_N, overlap_N)
    assert found["correlation"] == 1.0
    assert found["error"] == 0.0
    assert found["bins"] == [[1, 0.05, 0.05], [2, 0.15, 0.15], [2, 0.975, 0.975]]


def test_the_error_is_the_distance_from_the_overlap_that_boxes_of_like_confidence_have() -> None:
    found = against_overlap(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1.0, 0.0, 0.4, 0.0]))
    assert found["bins"] == [[2, 0.1, 0.2], [2, 0.9, 0.5]]
    assert found["error"] == pytest.approx(0.25)
    assert found["num_boxes"] == 4


def test_there_is_a_picture_for_each_policy_with_a_line_for_each_rule() -> None:
    found = against_overlap(np.array([0.9, 0.1]), np.array([0.8, 0.3]))
    rows = [
        {"policy": policy, "score_rule": rule, **found}
        for policy in ("likelihood", "tuned")
        for rule in ("class", "p2")
    ]
    pictures = draw(rows).axes
    assert [axes.get_title() for axes in pictures] == ["likelihood", "tuned"]
    assert all(len(axes.get_lines()) == 3 for axes in pictures)  # the diagonal is one
