"""The paper's per-image reward, against the definition and published post-processing.

Axes: B images, H height, W width, C categories.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import Counts, image_reward, match_image
from rewardtune.tasks.panoptic.reward import (
    PanopticReward,
    PanopticTarget,
    panoptic_reward,
    panoptic_reward_of_two_channels,
)
from tests.rewardtune.tasks.panoptic.random_maps import (
    NUM_CATEGORIES,
    Scene,
    as_labels,
    merge_stuff,
    recounted,
    scene,
    scenes,
)

FIXTURE = Path(__file__).resolve().parents[3] / "fixtures" / "panoptic_pq.npz"
IS_THING_C = np.array([True, False, True, False])
ALL_THINGS_C = np.ones(NUM_CATEGORIES, dtype=np.bool_)


def reward(drawn: Scene, *, is_thing_C: NDArray[np.bool_] = IS_THING_C) -> PanopticReward:
    label_HW, category_P = as_labels(drawn)
    return panoptic_reward(
        label_HW[None],
        category_P[None],
        PanopticTarget.of(drawn.target_id_HW, drawn.target),
        is_thing_C=is_thing_C,
    )


@settings(max_examples=100, deadline=None)
@given(drawn=scenes())
def test_reward_is_its_definition_on_recounted_areas_with_stuff_merged(drawn: Scene) -> None:
    merged = merge_stuff(drawn, IS_THING_C)
    counts = match_image(
        merged.target_id_HW, recounted(drawn), merged.predicted_id_HW, merged.predicted
    )
    total = Counts()
    for c in counts.values():
        total += c
    got = reward(drawn)
    assert got.reward_S[0] == pytest.approx(image_reward(counts), rel=0, abs=1e-12)
    assert got.matched_iou_S[0] == pytest.approx(total.matched_iou, rel=0, abs=1e-12)
    assert got.true_positives_S[0] == total.true_positives
    assert got.false_positives_S[0] == total.false_positives
    assert got.false_negatives_S[0] == total.false_negatives


def test_reward_and_counts_are_those_of_the_reference_at_both_sizes() -> None:
    with np.load(FIXTURE) as reference:
        values = {name: reference[name] for name in reference.files}
    category_ids = values["cfg/category_id"].tolist()
    is_thing_C = values["cfg/category_isthing"].astype(np.bool_)
    for size, map_name in (("image_size", "segment_id_map"), ("model_size", "segment_id_map_mod")):
        for b in range(4):
            if size == "image_size":
                two_HW2 = values[f"out/{b}/two_channel_at_image_size"]
            else:
                two_HW2 = values["out/two_channel_minfrac_0.0"][b]
            suffix = "el_size" if map_name.endswith("mod") else ""
            segments = [
                Segment(int(i), category_ids.index(c), int(area), bool(is_crowd))
                for i, c, is_crowd, area in values[f"gt/{b}/segments"]
            ]
            got = panoptic_reward_of_two_channels(
                two_HW2[None, ..., 0],
                two_HW2[None, ..., 1],
                PanopticTarget.of(values[f"gt/{b}/{map_name}{suffix}"], segments),
                is_thing_C=is_thing_C,
            )
            expected_C4 = values[f"out/{size}/per_image_class_iou_tp_fp_fn"][b]
            assert got.reward_S[0] == pytest.approx(
                values[f"out/{size}/reward_sum_iou_minus_0.3_fp"][b], rel=0, abs=1e-12
            )
            for name, value in zip(
                (
                    got.matched_iou_S,
                    got.true_positives_S,
                    got.false_positives_S,
                    got.false_negatives_S,
                ),
                expected_C4.sum(axis=0),
                strict=True,
            ):
                assert name[0] == pytest.approx(value, rel=0, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(drawn=scenes(), seed=st.integers(0, 99))
def test_numbering_of_predicted_segments_does_not_matter(drawn: Scene, seed: int) -> None:
    label_HW, category_P = as_labels(drawn)
    order = np.append(0, 1 + np.random.default_rng(seed).permutation(len(category_P) - 1))
    renumbered = np.empty_like(category_P)
    renumbered[order] = category_P
    target = PanopticTarget.of(drawn.target_id_HW, drawn.target)
    got = panoptic_reward(
        np.stack([label_HW, order.astype(np.uint8)[label_HW]]),
        np.stack([category_P, renumbered]),
        target,
        is_thing_C=IS_THING_C,
    )
    assert got.reward_S[0] == got.reward_S[1]
    assert got.false_positives_S[0] == got.false_positives_S[1]


@settings(max_examples=50, deadline=None)
@given(drawn=scenes())
def test_reward_is_bounded_by_what_is_annotated_and_predicted(drawn: Scene) -> None:
    got = reward(drawn, is_thing_C=ALL_THINGS_C)
    target = PanopticTarget.of(drawn.target_id_HW, drawn.target)
    assert got.true_positives_S[0] / 2 <= got.matched_iou_S[0] <= got.true_positives_S[0]
    assert got.true_positives_S[0] + got.false_negatives_S[0] == target.num_segments
    assert got.true_positives_S[0] + got.false_positives_S[0] <= len(drawn.predicted)
    assert -0.3 * len(drawn.predicted) - 1e-12 <= got.reward_S[0] <= target.num_segments


@settings(max_examples=60, deadline=None)
@given(drawn=scenes())
def test_removing_a_false_positive_never_lowers_the_reward(drawn: Scene) -> None:
    label_HW, category_P = as_labels(drawn)
    target = PanopticTarget.of(drawn.target_id_HW, drawn.target)

    def score(category_P: NDArray[np.int32]) -> PanopticReward:
        return panoptic_reward(label_HW[None], category_P[None], target, is_thing_C=ALL_THINGS_C)

    whole = score(category_P)
    for p in range(1, len(category_P)):
        without_P = category_P.copy()
        without_P[p] = -1
        without = score(without_P)
        if without.true_positives_S[0] == whole.true_positives_S[0]:
            assert without.reward_S[0] >= whole.reward_S[0]
            assert without.matched_iou_S[0] == whole.matched_iou_S[0]


def test_perfect_empty_split_and_doubled_predictions() -> None:
    id_HW = np.repeat([5, 5, 9, 9], 8).reshape(4, 8)
    target = PanopticTarget.of(id_HW, [Segment(5, 0, 99, False), Segment(9, 1, 99, False)])
    perfect_HW = np.repeat([1, 1, 2, 2], 8).reshape(4, 8).astype(np.uint8)
    split_HW = perfect_HW.copy()
    split_HW[:2, 4:] = 3  # half of the thing is another thing: 16 pixels become 8 and 8
    cut_HW = perfect_HW.copy()
    cut_HW[2:, 4:] = 3  # the stuff in two parts, which count as one
    got = panoptic_reward(
        np.stack([perfect_HW, np.zeros_like(perfect_HW), split_HW, cut_HW]),
        np.array([[-1, 0, 1, -1], [-1, -1, -1, -1], [-1, 0, 1, 0], [-1, 0, 1, 1]]),
        target,
        is_thing_C=IS_THING_C,
    )
    np.testing.assert_allclose(got.reward_S, [2.0, 0.0, 1.0 - 2 * 0.3, 2.0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(got.false_positives_S, [0, 0, 2, 0])
    np.testing.assert_array_equal(got.false_negatives_S, [0, 2, 1, 0])


def test_segments_that_the_view_does_not_show_are_not_missed() -> None:
    target = PanopticTarget.of(
        np.array([[5, 5, 0, 6]]), [Segment(5, 0, 2, False), Segment(8, 1, 400, False)]
    )
    assert target.num_segments == 1
    got = panoptic_reward(
        np.array([[[0, 0, 0, 1]]], dtype=np.uint8),
        np.array([[-1, 1]]),
        target,
        is_thing_C=IS_THING_C,
    )
    # Id 6 is painted but not listed: it excuses nothing.
    assert got.false_negatives_S[0] == 1 and got.false_positives_S[0] == 1


def test_two_channels_are_the_same_as_labels() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        drawn = scene(seed, kind="blocks", predicted_kind="alike", max_id=60, num=8)
        class_HW = np.zeros(drawn.predicted_id_HW.shape, dtype=np.int32)
        for identity, category in drawn.predicted.items():
            class_HW[drawn.predicted_id_HW == identity] = category + 1
        # What void pixels say about their instance means nothing.
        instance_HW = np.where(class_HW > 0, drawn.predicted_id_HW, rng.integers(9))
        got = panoptic_reward_of_two_channels(
            class_HW[None],
            instance_HW[None],
            PanopticTarget.of(drawn.target_id_HW, drawn.target),
            is_thing_C=IS_THING_C,
        )
        assert got.reward_S[0] == pytest.approx(reward(drawn).reward_S[0], rel=0, abs=1e-12)


def test_scoring_twice_gives_the_same_and_changes_nothing() -> None:
    drawn = scene(5, kind="blocks", predicted_kind="alike", max_id=60, num=8)
    label_HW, category_P = as_labels(drawn)
    before = label_HW.copy(), category_P.copy()
    target = PanopticTarget.of(drawn.target_id_HW, drawn.target)
    shown = target.label_HW.copy()
    label_HW.flags.writeable = category_P.flags.writeable = False
    first, second = (
        panoptic_reward(label_HW[None], category_P[None], target, is_thing_C=IS_THING_C)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.reward_S, second.reward_S)
    np.testing.assert_array_equal(label_HW, before[0])
    np.testing.assert_array_equal(category_P, before[1])
    np.testing.assert_array_equal(target.label_HW, shown)


def test_what_cannot_be_scored_is_refused() -> None:
    target = PanopticTarget.of(np.array([[5, 0]]), [Segment(5, 0, 1, False)])
    label_SHW, category_SP = np.zeros((1, 1, 2), np.uint8), np.array([[-1]])
    with pytest.raises(ValueError, match="false_positive_weight must be >= 0, got nan"):
        panoptic_reward(
            label_SHW,
            category_SP,
            target,
            is_thing_C=IS_THING_C,
            false_positive_weight=float("nan"),
        )
    with pytest.raises(ValueError, match="predicted maps must be integers"):
        panoptic_reward(label_SHW * 0.5, category_SP, target, is_thing_C=IS_THING_C)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is_thing_C must be"):
        panoptic_reward(label_SHW, category_SP, target, is_thing_C=np.ones(4))  # type: ignore[arg-type]
    foreign = PanopticTarget.of(np.array([[5, 5]]), [Segment(5, 2, 1, False)])
    with pytest.raises(ValueError, match="target categories must be below 1"):
        panoptic_reward(label_SHW, category_SP, foreign, is_thing_C=np.ones(1, dtype=np.bool_))
    with pytest.raises(ValueError, match="a segment has id 0"):
        PanopticTarget.of(np.array([[5]]), [Segment(0, 0, 1, False)])
    with pytest.raises(ValueError, match="-2"):
        PanopticTarget.of(np.array([[-2]]), [])
