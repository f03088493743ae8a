"""The fast form against the published values and the definition, and what rewards must keep.

Axes: I images, S sequences of an image, K thresholds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.tasks.detection.codec import Boxes, DetectionCodec
from rewardtune.tasks.detection.definition import (
    MAP_THRESHOLDS,
    class_weights,
    detection_reward,
    match_boxes,
    recall_reward,
    threshold_weights,
)
from rewardtune.tasks.detection.kernel import (
    BatchMatch,
    Targets,
    _is_sound,
    _match,
    _present,
    match_batch,
    warm_up,
)

FIXTURE = np.load(Path(__file__).parents[3] / "fixtures" / "detection_reward.npz")
FIXTURE_CODEC = DetectionCodec(num_classes=80, max_boxes=12)
COCO_WEIGHT_C = class_weights(FIXTURE["cfg/cls_counts"], smoothing=0.05)
SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "detection"
# Few classes and levels, so that random boxes overlap, tie and hit thresholds exactly.
SMALL = DetectionCodec(num_classes=2, max_boxes=8, max_level=10)
SMALL_WEIGHT_C = np.array([0.7, 1.3])


def match_images(
    tokens_IST: np.ndarray, target_tokens_IT: np.ndarray, *, weight_C: np.ndarray
) -> BatchMatch:
    codec = DetectionCodec(num_classes=80, max_boxes=100)
    num_images, num_samples, length = tokens_IST.shape
    return match_batch(
        tokens_IST.reshape(-1, length),
        Targets.of([codec.decode(tokens) for tokens in target_tokens_IT], codec),
        np.repeat(np.arange(num_images), num_samples),
        codec=codec,
        class_weight_C=weight_C,
        iou_thresholds=MAP_THRESHOLDS,
    )


def match_one(
    tokens_ST: np.ndarray, target: Boxes, *, weight_C: np.ndarray = SMALL_WEIGHT_C
) -> BatchMatch:
    return match_batch(
        tokens_ST,
        Targets.of([target], SMALL),
        np.zeros(len(tokens_ST), dtype=np.int64),
        codec=SMALL,
        class_weight_C=weight_C,
        iou_thresholds=MAP_THRESHOLDS,
    )


def small_rewards(tokens_ST: np.ndarray, target: Boxes) -> np.ndarray:
    return match_one(tokens_ST, target).reward_SK(duplicate_penalty=0.3)


def small_boxes(draw: st.DrawFn, *, most: int) -> Boxes:
    coordinate = st.integers(0, 10)
    row = st.tuples(
        coordinate, coordinate, coordinate, coordinate, st.integers(0, 1), st.integers(0, 2)
    )
    rows = np.array(draw(st.lists(row, max_size=most)), dtype=np.int64).reshape(-1, 6)
    return Boxes(yxyx_N4=rows[:, :4] / 10, label_N=rows[:, 4], confidence_N=rows[:, 5])


def in_slots(boxes: Boxes) -> np.ndarray:
    """The boxes as tokens in their own order, absent ones included."""
    tokens_P6 = np.zeros((8, 6), dtype=np.int32)
    tokens_P6[: len(boxes), :4] = SMALL.levels(boxes.yxyx_N4) + SMALL.first_level
    tokens_P6[: len(boxes), 4] = boxes.label_N + SMALL.first_class
    tokens_P6[: len(boxes), 5] = boxes.confidence_N
    return tokens_P6.reshape(-1)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Boxes, Boxes]:
    return small_boxes(draw, most=8), small_boxes(draw, most=6)


def test_fast_form_agrees_with_the_published_function() -> None:
    match = match_images(FIXTURE["in/pred_tokens"], FIXTURE["in/gt_tokens"], weight_C=COCO_WEIGHT_C)
    reward_KIS = match.reward_SK(duplicate_penalty=0.3).T.reshape(10, 5, 3)
    published = "out/per_threshold"
    np.testing.assert_allclose(reward_KIS, FIXTURE[f"{published}/reward"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        match.num_matched_SK.T.reshape(10, 5, 3), FIXTURE[f"{published}/num_matches"]
    )
    np.testing.assert_allclose(
        match.duplicated_SK.T.reshape(10, 5, 3),
        FIXTURE[f"{published}/nms_penalty"],
        rtol=0,
        atol=1e-5,
    )
    np.testing.assert_array_equal(match.correct_SP.reshape(5, 3, 12), FIXTURE["out/correct"])
    np.testing.assert_allclose(
        match.match_iou_SP.reshape(5, 3, 12), FIXTURE["out/match_iou"], rtol=0, atol=1e-5
    )
    for aggregate, name in (
        ("mean", "out/reward_mean_over_thresholds"),
        ("big_vision", "out/reward_reference_aggregate"),
    ):
        weight_K = threshold_weights(MAP_THRESHOLDS, aggregate=aggregate)  # type: ignore[arg-type]
        reward_IS = np.tensordot(weight_K, reward_KIS, axes=1)
        np.testing.assert_allclose(reward_IS, FIXTURE[name], rtol=0, atol=1e-5)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared COCO data beside the checkout")
@pytest.mark.parametrize("weights", ["weighted", "uniform"])
def test_fast_form_agrees_with_the_published_function_on_coco(weights: str) -> None:
    data = np.load(SHARED / "reward_tiny_a.npz")
    weight_C = COCO_WEIGHT_C if weights == "weighted" else np.ones(80)
    match = match_images(data["seqs_pred"], data["seqs_gt"], weight_C=weight_C)
    well_defined = ~data["knife_edge"]
    for ours, name in (
        (match.reward_SK(duplicate_penalty=0.3), "reward"),
        (match.num_matched_SK, "num_matches"),
        (match.duplicated_SK, "nms_penalty"),
    ):
        difference = np.abs(ours.T.reshape(10, 50, 4) - data[f"{weights}_{name}_per_thr"])
        assert difference[well_defined].max() < 1e-4, name

    weight_K = threshold_weights(MAP_THRESHOLDS, aggregate="big_vision")
    reward_IS = (match.reward_SK(duplicate_penalty=0.3) @ weight_K).reshape(50, 4)
    difference = np.abs(reward_IS - data[f"{weights}_official_reward"])
    assert difference[well_defined.all(axis=0)].max() < 1e-4
    at_half = well_defined[0]
    np.testing.assert_array_equal(
        match.correct_SP.reshape(50, 4, 100)[at_half], data["correct"][at_half]
    )
    np.testing.assert_allclose(
        match.match_iou_SP.reshape(50, 4, 100)[at_half], data["match_iou"][at_half], atol=1e-5
    )


@given(scene=scenes())
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_fast_form_equals_the_definition(scene: tuple[Boxes, Boxes]) -> None:
    predicted, target = scene
    match = match_one(in_slots(predicted)[None], target)
    reward_K = match.reward_SK(duplicate_penalty=0.3)[0]
    for k, threshold in enumerate(MAP_THRESHOLDS):
        slow = match_boxes(predicted, target, iou_threshold=threshold, max_level=10)
        assert match.num_matched_SK[0, k] == len(np.unique(slow.target_P[slow.target_P >= 0]))
        assert match.num_duplicates_SK[0, k] == slow.is_duplicate_P.sum()
        assert reward_K[k] == pytest.approx(
            detection_reward(
                predicted,
                target,
                iou_threshold=threshold,
                class_weight_C=SMALL_WEIGHT_C,
                duplicate_penalty=0.3,
                max_level=10,
            ),
            abs=1e-12,
        )
    slow = match_boxes(predicted, target, iou_threshold=0.5, max_level=10)
    num_predicted = len(predicted)
    np.testing.assert_array_equal(match.match_iou_SP[0, :num_predicted], slow.iou_P)
    expected = np.where(slow.target_P >= 0, 2, 1) * predicted.is_present_N
    np.testing.assert_array_equal(match.correct_SP[0, :num_predicted], expected)
    assert match.num_boxes_S[0] == predicted.is_present_N.sum()


@given(scene=scenes(), seed=st.integers(0, 100))
@settings(deadline=None)
def test_order_of_predicted_boxes_changes_no_bit(scene: tuple[Boxes, Boxes], seed: int) -> None:
    predicted, target = scene
    shuffled = predicted[np.random.default_rng(seed).permutation(len(predicted))]
    tokens_ST = np.stack([in_slots(predicted), in_slots(shuffled)])
    one, other = small_rewards(tokens_ST, target)
    np.testing.assert_array_equal(one, other)


@given(scene=scenes())
@settings(deadline=None)
def test_reward_stays_within_what_can_be_found_and_repeated(scene: tuple[Boxes, Boxes]) -> None:
    predicted, target = scene
    reward_K = small_rewards(in_slots(predicted)[None], target)[0]
    found_at_best = SMALL_WEIGHT_C[target.label_N[target.is_present_N]].sum()
    repeats_at_worst = 0.3 * SMALL_WEIGHT_C.max() * max(int(predicted.is_present_N.sum()) - 1, 0)
    assert np.all(reward_K <= found_at_best + 1e-12)
    assert np.all(reward_K >= -repeats_at_worst - 1e-12)


@given(scene=scenes())
@settings(deadline=None)
def test_removing_a_box_that_matches_nothing_changes_nothing(scene: tuple[Boxes, Boxes]) -> None:
    predicted, target = scene
    whole = small_rewards(in_slots(predicted)[None], target)[0]
    chose_P = match_boxes(predicted, target, iou_threshold=0.5, max_level=10).target_P >= 0
    for p in np.flatnonzero(~chose_P):
        rest = predicted[np.delete(np.arange(len(predicted)), p)]
        np.testing.assert_array_equal(small_rewards(in_slots(rest)[None], target)[0], whole)


@given(scene=scenes())
@settings(deadline=None)
def test_repeating_a_box_never_raises_the_reward(scene: tuple[Boxes, Boxes]) -> None:
    predicted, target = scene[0][:7], scene[1]
    whole = small_rewards(in_slots(predicted)[None], target)[0]
    for p in range(len(predicted)):
        twice = predicted[np.append(np.arange(len(predicted)), p)]
        assert np.all(small_rewards(in_slots(twice)[None], target)[0] <= whole + 1e-12)


@given(scene=scenes(), others=st.lists(scenes(), max_size=3))
@settings(deadline=None)
def test_a_sequence_scores_the_same_alone_and_in_a_batch(
    scene: tuple[Boxes, Boxes], others: list[tuple[Boxes, Boxes]]
) -> None:
    every = [*others, scene, *others]
    match = match_batch(
        np.stack([in_slots(predicted) for predicted, _ in every]),
        Targets.of([target for _, target in every], SMALL),
        np.arange(len(every)),
        codec=SMALL,
        class_weight_C=SMALL_WEIGHT_C,
        iou_thresholds=MAP_THRESHOLDS,
    )
    alone = match_one(in_slots(scene[0])[None], scene[1])
    at = len(others)
    np.testing.assert_array_equal(match.matched_SK[at], alone.matched_SK[0])
    np.testing.assert_array_equal(match.duplicated_SK[at], alone.duplicated_SK[0])
    np.testing.assert_array_equal(match.match_iou_SP[at], alone.match_iou_SP[0])


@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_off_the_wire_and_strided_ones_are_read_alike(writeable: bool) -> None:
    target = FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][0])
    tokens_ST = FIXTURE["in/pred_tokens"][0].astype(np.int64)[::-1]
    tokens_ST.flags.writeable = writeable
    match = match_batch(
        tokens_ST,
        Targets.of([target], FIXTURE_CODEC),
        np.zeros(3, dtype=np.int64),
        codec=FIXTURE_CODEC,
        class_weight_C=COCO_WEIGHT_C,
        iou_thresholds=MAP_THRESHOLDS,
    )
    np.testing.assert_allclose(
        match.reward_SK(duplicate_penalty=0.3).T,
        FIXTURE["out/per_threshold/reward"][:, 0, ::-1],
        atol=1e-5,
    )


@given(scene=scenes(), others=st.lists(scenes(), max_size=3))
@settings(deadline=None)
def test_targets_are_the_rounded_boxes_that_are_there(
    scene: tuple[Boxes, Boxes], others: list[tuple[Boxes, Boxes]]
) -> None:
    images = [scene[1], *(target for _, target in others)]
    targets = Targets.of(images, SMALL)
    assert targets.num_images == len(images)
    for i, boxes in enumerate(images):
        own = slice(targets.offset_I[i], targets.offset_I[i + 1])
        present = boxes[boxes.is_present_N]
        np.testing.assert_array_equal(targets.level_G4[own], SMALL.levels(present.yxyx_N4))
        np.testing.assert_array_equal(targets.label_G[own], present.label_N)


def test_no_images_and_images_without_boxes_are_targets_too() -> None:
    nothing = SMALL.decode(np.zeros(48, dtype=np.int32))
    assert Targets.of([], SMALL).num_images == 0
    assert Targets.of([nothing, nothing], SMALL).offset_I.tolist() == [0, 0, 0]
    full_ST = np.tile(np.array([3, 3, 9, 9, 14, 2], dtype=np.int32), (1, 8))
    assert small_rewards(full_ST, nothing).tolist() == [[0.0] * 10]


def test_an_exact_half_level_is_rounded_to_the_even_one() -> None:
    half = Boxes(
        np.array([[0.05, 0.15, 0.25, 0.35]]), np.zeros(1, np.int64), np.full(1, 2, np.int64)
    )
    assert Targets.of([half], SMALL).level_G4.tolist() == SMALL.levels(half.yxyx_N4).tolist()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf, -0.001, 1.001])
def test_targets_outside_the_frame_are_refused_where_they_count(broken: float) -> None:
    yxyx_N4 = np.array([[0.1, 0.1, 0.5, 0.5], [0.2, broken, 0.6, 0.6]])
    present = Boxes(yxyx_N4, np.zeros(2, np.int64), np.full(2, 2, np.int64))
    with pytest.raises(ValueError, match=r"fractions in \[0, 1\]"):
        Targets.of([present], SMALL)
    with pytest.raises(ValueError, match=r"fractions in \[0, 1\]"):
        Targets.of([present[:1], present], SMALL)
    hidden = Boxes(yxyx_N4, np.zeros(2, np.int64), np.array([2, 0]))
    assert len(Targets.of([hidden], SMALL).label_G) == 1


def test_classes_that_the_codec_does_not_have_are_refused() -> None:
    box = Boxes(np.array([[0.1, 0.1, 0.5, 0.5]]), np.array([-1]), np.array([2]))
    with pytest.raises(ValueError, match="label_G must not be negative"):
        Targets.of([box], SMALL)
    other = Boxes(box.yxyx_N4, np.array([2]), np.array([2]))
    with pytest.raises(ValueError, match=r"target classes must be in 0\.\.1"):
        match_one(np.zeros((1, 48), dtype=np.int32), other)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared COCO data beside the checkout")
def test_the_recall_reward_is_the_published_one_without_weights() -> None:
    data = np.load(SHARED / "reward_tiny_a.npz")
    codec = DetectionCodec(num_classes=80, max_boxes=100)
    for i in range(0, 50, 5):
        target = codec.decode(data["seqs_gt"][i])
        for s in range(4):
            if not data["knife_edge"][0, i, s]:
                ours = recall_reward(codec.decode(data["seqs_pred"][i, s]), target)
                assert ours == pytest.approx(data["uniform_reward_per_thr"][0, i, s], abs=1e-4)


def test_shapes_that_do_not_fit_are_refused() -> None:
    target = SMALL.decode(np.zeros(48, dtype=np.int32))
    with pytest.raises(ValueError, match="tokens must be integers"):
        match_one(np.zeros((1, 48)), target)
    with pytest.raises(ValueError, match="class_weight_C"):
        match_one(np.zeros((1, 48), dtype=np.int32), target, weight_C=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="image_S"):
        match_batch(
            np.zeros((1, 48), dtype=np.int32),
            Targets.of([target], SMALL),
            np.array([1]),
            codec=SMALL,
            class_weight_C=SMALL_WEIGHT_C,
            iou_thresholds=(0.5,),
        )
    with pytest.raises(ValueError, match="offset_I"):
        Targets(np.zeros((1, 4), np.int32), np.zeros(1, np.int32), np.array([0, 2]))


def test_integers_wider_than_tokens_are_clipped_not_wrapped() -> None:
    target = FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][0])
    present = target[target.is_present_N]
    tokens_ST = FIXTURE_CODEC.encode(present, rng=np.random.default_rng(0))[None].astype(np.int64)
    tokens_ST[tokens_ST == 2] = 2**32
    match = match_batch(
        tokens_ST,
        Targets.of([target], FIXTURE_CODEC),
        np.zeros(1, dtype=np.int64),
        codec=FIXTURE_CODEC,
        class_weight_C=np.ones(80),
        iou_thresholds=(0.5,),
    )
    assert match.matched_SK.item() == len(present)


def num_signatures() -> list[int]:
    kernels: list[Any] = [_match, _present, _is_sound]
    return [len(kernel.signatures) for kernel in kernels]


def test_warming_up_leaves_nothing_to_compile() -> None:
    warm_up()
    num_compiled = num_signatures()
    tokens_ST = FIXTURE["in/pred_tokens"][0].astype(np.int16)[::-1]
    tokens_ST.flags.writeable = False
    match_batch(
        tokens_ST,
        Targets.of([FIXTURE_CODEC.decode(FIXTURE["in/gt_tokens"][0])], FIXTURE_CODEC),
        np.zeros(3, dtype=np.int32),
        codec=FIXTURE_CODEC,
        class_weight_C=COCO_WEIGHT_C,
        iou_thresholds=MAP_THRESHOLDS,
    )
    assert num_signatures() == num_compiled
