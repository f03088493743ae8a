"""Wrong boxes beside right ones, for maximum likelihood to doubt."""

from __future__ import annotations

import numpy as np
import pytest

from rewardtune.tasks.detection.codec import Boxes, DetectionCodec
from rewardtune.tasks.detection.target import with_wrong_boxes

RIGHT, WRONG = 2, 1
CODEC = DetectionCodec(num_classes=10, max_boxes=6)
BOXES = Boxes(
    yxyx_N4=np.array([[0.1, 0.2, 0.4, 0.5], [0.5, 0.5, 0.9, 0.8]]),
    label_N=np.array([3, 9]),
    confidence_N=np.array([RIGHT, RIGHT]),
)


def copies_of(boxes: Boxes, *, codec: DetectionCodec = CODEC, ratio: float, seed: int) -> Boxes:
    rng = np.random.default_rng(seed)
    noisy = with_wrong_boxes(boxes, codec, ratio=ratio, confidence=WRONG, rng=rng)
    kept = noisy[: len(boxes)]
    np.testing.assert_array_equal(kept.yxyx_N4, boxes.yxyx_N4)
    np.testing.assert_array_equal(kept.label_N, boxes.label_N)
    np.testing.assert_array_equal(kept.confidence_N, boxes.confidence_N)
    return noisy[len(boxes) :]


def test_every_copy_is_marked_wrong_and_is_moved_or_of_another_class() -> None:
    for seed in range(200):
        copies = copies_of(BOXES, ratio=1.0, seed=seed)
        assert copies.confidence_N.tolist() == [WRONG, WRONG]
        is_moved_N = (copies.yxyx_N4 != BOXES.yxyx_N4).any(axis=1)
        is_other_N = copies.label_N != BOXES.label_N
        assert (is_moved_N ^ is_other_N).all()
        assert ((copies.yxyx_N4 >= 0) & (copies.yxyx_N4 <= 1)).all()
        assert ((copies.label_N >= 0) & (copies.label_N < 10)).all()


def test_as_many_as_the_ratio_says() -> None:
    counts = [len(copies_of(BOXES, ratio=0.25, seed=seed)) for seed in range(2000)]
    assert np.mean(counts) == pytest.approx(0.5, abs=0.05)


def test_no_box_loses_its_slot_to_a_copy() -> None:
    codec = DetectionCodec(num_classes=10, max_boxes=3)
    assert len(copies_of(BOXES, codec=codec, ratio=1.0, seed=0)) == 1
    full = DetectionCodec(num_classes=10, max_boxes=1)
    assert len(copies_of(BOXES, codec=full, ratio=1.0, seed=0)) == 0


def test_a_single_class_leaves_only_moves() -> None:
    codec = DetectionCodec(num_classes=1, max_boxes=6)
    boxes = Boxes(BOXES.yxyx_N4, np.zeros(2, dtype=np.int64), BOXES.confidence_N)
    for seed in range(50):
        assert copies_of(boxes, codec=codec, ratio=1.0, seed=seed).label_N.tolist() == [0, 0]


def test_no_boxes_no_copies() -> None:
    assert len(copies_of(BOXES[:0], ratio=1.0, seed=0)) == 0
