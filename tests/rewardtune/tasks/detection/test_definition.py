"""The definition against the published function and exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.tasks.detection.codec import Boxes, DetectionCodec
from rewardtune.tasks.detection.definition import (
    MAP_THRESHOLDS,
    box_iou,
    class_weights,
    detection_reward,
    match_boxes,
    recall_reward,
    threshold_weights,
)

FIXTURE = np.load(Path(__file__).parents[3] / "fixtures" / "detection_reward.npz")
FIXTURE_CODEC = DetectionCodec(num_classes=80, max_boxes=12)
COCO_WEIGHT_C = class_weights(FIXTURE["cfg/cls_counts"], smoothing=0.05)


def test_class_weights_are_the_published_ones() -> None:
    np.testing.assert_allclose(COCO_WEIGHT_C, FIXTURE["out/class_weights"], rtol=1e-6)
    assert COCO_WEIGHT_C.mean() == pytest.approx(1.0, abs=1e-12)
    assert COCO_WEIGHT_C[0] == pytest.approx(0.165, abs=5e-4)  # person, by far the commonest


def test_definition_agrees_with_the_published_function() -> None:
    published_KIS = FIXTURE["out/per_threshold/reward"]
    for k, threshold in enumerate(MAP_THRESHOLDS):
        for i in range(5):
            for s in range(3):
                reward = detection_reward(
                    FIXTURE_CODEC.decode(FIXTURE["in/pred_tokens"][i, s]),
                    FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][i]),
                    iou_threshold=threshold,
                    class_weight_C=COCO_WEIGHT_C,
                    duplicate_penalty=0.3,
                )
                assert reward == pytest.approx(published_KIS[k, i, s], abs=1e-5)


def test_published_aggregate_lets_later_thresholds_overwrite() -> None:
    weight_K = threshold_weights(MAP_THRESHOLDS, aggregate="big_vision")
    np.testing.assert_allclose(weight_K, [0.1, 0, 0.2, 0, 0.2, 0, 0, 0.3, 0, 0.2], atol=1e-15)
    index_K = FIXTURE["out/reference_aggregate_threshold_index"]
    np.testing.assert_allclose(weight_K, np.bincount(index_K, minlength=10) / 10, atol=1e-15)
    np.testing.assert_array_equal(threshold_weights(MAP_THRESHOLDS, aggregate="mean"), 0.1)


corners = st.tuples(*[st.integers(0, 20)] * 4)


@given(predicted=corners, target=corners)
@settings(max_examples=300, deadline=None)
def test_overlaps_are_on_the_exact_side_of_every_threshold(
    predicted: tuple[int, int, int, int], target: tuple[int, int, int, int]
) -> None:
    def box(corner: tuple[int, int, int, int]) -> Boxes:
        return Boxes(np.array([corner]) / 1000, np.zeros(1, np.int64), np.ones(1, np.int64))

    (y0, x0, y1, x1), (u0, v0, u1, v1) = predicted, target
    inter = max(min(y1, u1) - max(y0, u0), 0) * max(min(x1, v1) - max(x0, v0), 0)
    union = abs((y1 - y0) * (x1 - x0)) + abs((u1 - u0) * (v1 - v0)) - inter
    iou = box_iou(box(predicted), box(target)).item()
    for numerator, threshold in zip(range(10, 20), MAP_THRESHOLDS, strict=True):
        exceeds = inter > 0 and Fraction(inter, union) > Fraction(numerator, 20)
        assert (iou > threshold) == exceeds


@pytest.mark.parametrize("k", range(10))
def test_an_overlap_of_exactly_the_threshold_is_no_match(k: int) -> None:
    # Of a target of 20 x 50 levels the prediction covers 10 + k columns: IoU (10 + k) / 20.
    target = Boxes(np.array([[0, 0, 0.05, 0.02]]), np.zeros(1, np.int64), np.ones(1, np.int64))
    predicted = Boxes(
        np.array([[0, 0, 0.05, (10 + k) / 1000]]), np.zeros(1, np.int64), np.ones(1, np.int64)
    )
    chose = [
        match_boxes(predicted, target, iou_threshold=threshold).target_P[0] == 0
        for threshold in MAP_THRESHOLDS
    ]
    assert chose == [True] * k + [False] * (10 - k)


def test_recall_reward_counts_objects_less_repeats() -> None:
    predicted = FIXTURE_CODEC.decode(FIXTURE["in/pred_tokens"][0, 0])
    target = FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][0])
    match = match_boxes(predicted, target, iou_threshold=0.5)
    num_repeats = int(match.is_duplicate_P.sum())
    num_found = int((match.target_P >= 0).sum()) - num_repeats
    assert num_found > 0
    assert recall_reward(predicted, target) == pytest.approx(num_found - 0.3 * num_repeats)


def test_perfect_beats_empty_beats_repeated() -> None:
    target = FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][0])
    present = target[target.is_present_N]
    empty = target[:0]
    assert recall_reward(present, target) == len(present)
    assert recall_reward(empty, target) == 0.0
    five_times = present[np.zeros(5, dtype=np.int64)]
    assert recall_reward(five_times, target) == pytest.approx(1 - 0.3 * 4)
    assert recall_reward(present, empty) == 0.0


@pytest.mark.parametrize("thresholds", [(), (0.0,), (1.1,), (0.6, 0.5), (0.5, 0.5), (np.nan,)])
def test_thresholds_must_rise_within_their_range(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="iou_thresholds"):
        threshold_weights(thresholds, aggregate="mean")


@pytest.mark.parametrize(
    ("counts", "smoothing"),
    [([], 0.05), ([1, -1], 0.05), ([1, np.nan], 0.05), ([1, 0], 0.0), ([1, 2], np.inf)],
)
def test_class_weights_that_would_not_be_finite_are_refused(
    counts: list[float], smoothing: float
) -> None:
    with pytest.raises(ValueError, match=r"counts|smoothing"):
        class_weights(counts, smoothing=smoothing)


def test_unknown_frequencies_weigh_every_class_alike() -> None:
    np.testing.assert_array_equal(class_weights([0, 0, 0]), [1, 1, 1])
