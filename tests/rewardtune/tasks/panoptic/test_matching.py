"""The native matching is the definition, for whatever maps it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from numpy.typing import NDArray

from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import Counts, match_image
from rewardtune.tasks.panoptic.matching import (
    MAX_PAIRS,
    BatchCounts,
    TargetTable,
    UnmatchableError,
    match_ids,
    match_labels,
)
from tests.rewardtune.tasks.panoptic.random_maps import NUM_CATEGORIES, Scene, scene, scenes

NOTHING_MERGED_C = np.zeros(NUM_CATEGORIES, dtype=np.bool_)


def table(segments: list[Segment]) -> tuple[NDArray[np.int64], TargetTable]:
    """Ids and table of a target, with void in front."""
    listed = [Segment(0, -1, 0, False), *segments]
    return (
        np.array([[s.id for s in listed]]),
        TargetTable(
            category_IG=np.array([[s.category for s in listed]], dtype=np.int32),
            is_crowd_IG=np.array([[s.is_crowd for s in listed]]),
            area_IG=np.array([[s.area for s in listed]], dtype=np.float64),
        ),
    )


def match(drawn: Scene) -> BatchCounts:
    ids, target = table(drawn.target)
    return match_ids(
        drawn.target_id_HW[None],
        ids,
        target,
        drawn.predicted_id_HW[None],
        np.array([[0, *drawn.predicted]]),
        np.array([[-1, *drawn.predicted.values()]], dtype=np.int32),
        np.zeros(1, np.int64),
        is_merged_C=NOTHING_MERGED_C,
    )


def assert_counts(got: BatchCounts, expected: dict[int, Counts], *, sample: int = 0) -> None:
    for c in range(NUM_CATEGORIES):
        wanted = expected.get(c, Counts())
        assert got.true_positives_SC[sample, c] == wanted.true_positives
        assert got.false_positives_SC[sample, c] == wanted.false_positives
        assert got.false_negatives_SC[sample, c] == wanted.false_negatives
        assert got.matched_iou_SC[sample, c] == pytest.approx(wanted.matched_iou, rel=0, abs=1e-12)


def defined(drawn: Scene) -> dict[int, Counts]:
    return match_image(drawn.target_id_HW, drawn.target, drawn.predicted_id_HW, drawn.predicted)


@settings(max_examples=150, deadline=None)
@given(drawn=scenes())
@example(drawn=scene(0, kind="void", predicted_kind="void", max_id=9, num=0))
@example(drawn=scene(1, kind="void", predicted_kind="noise", max_id=9, num=8))
def test_ids_are_matched_as_defined(drawn: Scene) -> None:
    assert_counts(match(drawn), defined(drawn))


@settings(max_examples=50, deadline=None)
@given(drawn=scenes(max_id=40))
@pytest.mark.slow
def test_small_ids_serve_as_labels(drawn: Scene) -> None:
    # The same map as ids and, with a table that has a place for every number, as labels.
    category_G, area_G = np.full(40, -1), np.zeros(40)
    is_crowd_G = np.zeros(40, np.bool_)
    category_P = np.full(40, -1)
    last_crowd = {s.category: s.id for s in drawn.target if s.is_crowd}
    for s in drawn.target:
        if s.is_crowd and last_crowd[s.category] != s.id:
            continue  # labels stand in the order of their numbers, so leave one crowd to count
        category_G[s.id], area_G[s.id], is_crowd_G[s.id] = s.category, s.area, s.is_crowd
    for identity, category in drawn.predicted.items():
        category_P[identity] = category
    target = TargetTable(category_G.astype(np.int32)[None], is_crowd_G[None], area_G[None])
    dtypes: list[Any] = [np.uint8, np.uint16, np.int64]
    results = [
        match_labels(
            drawn.target_id_HW.astype(dtype)[None],
            target,
            drawn.predicted_id_HW.astype(dtype)[None],
            category_P[None],
            np.zeros(1, np.int64),
            is_merged_C=NOTHING_MERGED_C,
        )
        for dtype in dtypes
    ]
    for result in results:
        assert_counts(result, defined(drawn))


def test_runs_of_every_length_and_place_are_counted() -> None:
    # Sizes around the 64 pixels of one step, changes at its borders and in the rest.
    rng = np.random.default_rng(0)
    for num_pixels in [1, 2, 63, 64, 65, 66, 127, 128, 129, 130, 200, 1000]:
        for share in (0.0, 0.02, 0.3, 1.0):
            changes_2N = rng.random((2, num_pixels)) < share
            target_N, predicted_N = np.cumsum(changes_2N, axis=1) % 3
            segments = [Segment(k, 0, int((target_N == k).sum()) or 1, False) for k in (1, 2)]
            drawn = Scene(
                target_N[None],
                segments,
                predicted_N[None],
                {int(k): 0 for k in np.unique(predicted_N) if k},
            )
            assert_counts(match(drawn), defined(drawn))


def test_a_batch_is_its_samples_one_by_one() -> None:
    drawn = [
        scene(seed, kind="blocks", predicted_kind="alike", max_id=250, num=9) for seed in range(40)
    ]
    size = max(s.target_id_HW.shape for s in drawn)
    drawn = [s for s in drawn if s.target_id_HW.shape == size] * 3
    num_targets = max(len(s.target) for s in drawn) + 1
    num_predicted = max(len(s.predicted) for s in drawn) + 1

    def padded(values: list[Any], length: int, filler: float) -> list[Any]:
        return values + [filler] * (length - len(values))

    order = np.random.default_rng(0).permutation(len(drawn))
    result = match_ids(
        np.stack([s.target_id_HW for s in drawn]),
        np.array([padded([0, *(t.id for t in s.target)], num_targets, -1) for s in drawn]),
        TargetTable(
            category_IG=np.array(
                [padded([-1, *(t.category for t in s.target)], num_targets, -1) for s in drawn],
                dtype=np.int32,
            ),
            is_crowd_IG=np.array(
                [padded([False, *(t.is_crowd for t in s.target)], num_targets, 0) for s in drawn],
                dtype=np.bool_,
            ),
            area_IG=np.array(
                [padded([0.0, *(t.area for t in s.target)], num_targets, 0) for s in drawn]
            ),
        ),
        np.stack([drawn[i].predicted_id_HW for i in order]),
        np.array([padded([0, *drawn[i].predicted], num_predicted, -1) for i in order]),
        np.array([padded([-1, *drawn[i].predicted.values()], num_predicted, -1) for i in order]),
        order,
        is_merged_C=NOTHING_MERGED_C,
    )
    for sample, i in enumerate(order):
        assert_counts(result, defined(drawn[i]), sample=sample)


def test_void_listed_as_a_segment_is_both_as_officially() -> None:
    drawn = Scene(
        np.array([[0, 0, 0, 1]]),
        [Segment(1, 1, 1, False)],
        np.array([[2, 2, 3, 3]]),
        {2: 0, 3: 1},
    )
    with_void = Scene(
        drawn.target_id_HW,
        [Segment(0, 0, 3, False), *drawn.target],
        drawn.predicted_id_HW,
        drawn.predicted,
    )
    expected = defined(with_void)
    assert expected[0].true_positives == 1  # 2 pixels of a union of 2 + 3 - 2 - 2
    ids, target = table(drawn.target)
    target.category_IG[0, 0], target.area_IG[0, 0] = 0, 3
    result = match_ids(
        drawn.target_id_HW[None],
        ids,
        target,
        drawn.predicted_id_HW[None],
        np.array([[0, 2, 3]]),
        np.array([[-1, 0, 1]]),
        np.zeros(1, np.int64),
        is_merged_C=NOTHING_MERGED_C,
    )
    assert_counts(result, expected)


def test_matching_leaves_its_inputs_alone_and_takes_read_only_ones() -> None:
    drawn = scene(3, kind="blocks", predicted_kind="alike", max_id=100, num=6)
    before = drawn.target_id_HW.copy(), drawn.predicted_id_HW.copy()
    first = match(drawn)
    drawn.target_id_HW.flags.writeable = drawn.predicted_id_HW.flags.writeable = False
    second = match(drawn)
    np.testing.assert_array_equal(first.matched_iou_SC, second.matched_iou_SC)
    np.testing.assert_array_equal(before[0], drawn.target_id_HW)
    np.testing.assert_array_equal(before[1], drawn.predicted_id_HW)


# --- what cannot be matched ------------------------------------------------------------------


def match_small(
    target_HW: Any = ((0, 1),),
    predicted_HW: Any = ((0, 1),),
    *,
    category_P: Any = (-1, 0),
    image_S: Any = (0,),
    dtype: Any = np.uint8,
) -> BatchCounts:
    _, target = table([Segment(1, 0, 1, False)])
    return match_labels(
        np.array([target_HW], dtype=dtype),
        target,
        np.array([predicted_HW], dtype=dtype),
        np.array([category_P]),
        np.array(image_S),
        is_merged_C=NOTHING_MERGED_C,
    )


def test_labels_without_a_place_in_their_table_are_refused() -> None:
    with pytest.raises(UnmatchableError, match="sample 0: the target has label 1 and the predicti"):
        match_small(predicted_HW=((0, 2),))
    with pytest.raises(UnmatchableError, match="target has label 7"):
        match_small(target_HW=((7, 1),))
    with pytest.raises(UnmatchableError, match="label 1 has category 9: there are only 4"):
        match_small(category_P=(-1, 9))


@pytest.mark.parametrize("bad", [np.float64, np.bool_])
def test_maps_that_are_no_integers_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="maps must be integers"):
        match_small(dtype=bad)


def test_maps_of_nan_and_negative_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="maps must be integers"):
        match_small(predicted_HW=((0, np.nan),), dtype=np.float32)
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        with pytest.raises(ValueError, match="-1"):
            match_small(predicted_HW=((0, -1),), dtype=dtype)
    drawn = scene(3, kind="blocks", predicted_kind="alike", max_id=100, num=6)
    with pytest.raises(ValueError, match="-5"):
        match(Scene(drawn.target_id_HW, drawn.target, drawn.predicted_id_HW - 5, drawn.predicted))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        match_small(predicted_HW=((0, 1, 1),))
    with pytest.raises(ValueError, match="not empty"):
        match_small(target_HW=((),), predicted_HW=((),))
    with pytest.raises(ValueError, match="image_S must be in 0..0"):
        match_small(image_S=(1,))
    with pytest.raises(ValueError, match="image_S must name one target"):
        match_small(image_S=(0, 0))
    map_111, (_, target) = np.zeros((1, 1, 1), np.uint8), table([])
    with pytest.raises(ValueError, match="more than"):
        match_labels(
            map_111,
            target,
            map_111,
            np.broadcast_to(np.int32(-1), (1, MAX_PAIRS)),
            np.zeros(1, np.int64),
            is_merged_C=NOTHING_MERGED_C,
        )
