"""The definition against examples worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rewardtune.datasets.example import Segment
from rewardtune.tasks.panoptic.definition import Counts, category_quality, match_image, mean_quality

CAT, SKY = 1, 2


def test_an_overlap_of_exactly_one_half_is_no_match() -> None:
    target = [Segment(4, CAT, 2, False)]
    # 2 of 2 + 4 - 2 = 4 pixels; then 3 of 4.
    half = match_image(np.array([[4, 4, 9, 9]]), target, np.array([[7, 7, 7, 7]]), {7: CAT})
    assert half == {CAT: Counts(0.0, 0, 1, 1)}
    target = [Segment(4, CAT, 3, False)]
    more = match_image(np.array([[4, 4, 4, 9]]), target, np.array([[7, 7, 7, 7]]), {7: CAT})
    assert more == {CAT: Counts(0.75, 1, 0, 0)}


def test_void_of_the_target_leaves_the_union_and_that_of_the_prediction_stays() -> None:
    target = [Segment(4, CAT, 2, False)]
    counts = match_image(np.array([[4, 4, 0, 0]]), target, np.array([[7, 7, 7, 7]]), {7: CAT})
    assert counts[CAT].matched_iou == 1.0
    target = [Segment(4, CAT, 4, False)]
    counts = match_image(np.array([[4, 4, 4, 4]]), target, np.array([[7, 7, 7, 0]]), {7: CAT})
    assert counts[CAT].matched_iou == 0.75


def test_more_than_half_on_void_or_on_its_crowd_excuses_a_prediction() -> None:
    crowd = [Segment(4, CAT, 2, True)]
    for row, category, is_excused in [
        ([0, 0, 0, 9], CAT, True),
        ([0, 0, 9, 9], CAT, False),
        ([0, 4, 4, 9], CAT, True),  # void and crowd together
        ([0, 4, 4, 9], SKY, False),  # another category's crowd
    ]:
        counts = match_image(np.array([row]), crowd, np.array([[7, 7, 7, 7]]), {7: category})
        assert counts[category].false_positives == (0 if is_excused else 1)
        assert counts[CAT].false_negatives == 0  # a crowd is never missed


def test_of_two_crowds_of_a_category_the_last_listed_counts() -> None:
    first, second = Segment(4, CAT, 3, True), Segment(5, CAT, 1, True)
    maps = np.array([[4, 4, 4, 5]]), np.array([[7, 7, 7, 7]])
    assert match_image(maps[0], [first, second], maps[1], {7: CAT})[CAT].false_positives == 1
    assert match_image(maps[0], [second, first], maps[1], {7: CAT})[CAT].false_positives == 0


def test_listed_areas_count_and_not_painted_ones() -> None:
    target = [Segment(4, CAT, 6, False)]
    counts = match_image(np.array([[4, 4, 4, 4]]), target, np.array([[7, 7, 7, 7]]), {7: CAT})
    assert counts[CAT].matched_iou == 4 / 6


def test_predictions_must_list_what_they_paint() -> None:
    with pytest.raises(ValueError, match="predicted segment 7 is painted but not listed"):
        match_image(np.array([[0]]), [], np.array([[7]]), {})
    with pytest.raises(ValueError, match="predicted segment 7 is listed but not painted"):
        match_image(np.array([[0]]), [], np.array([[0]]), {7: CAT})


@pytest.mark.parametrize(
    "bad", [np.array([[0.5]]), np.array([[np.nan]]), np.array([[-1]]), np.zeros((0, 1), np.int64)]
)
def test_maps_must_be_ids(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="map"):
        match_image(bad, [], np.zeros(bad.shape, np.int64), {})


def test_qualities_are_their_formulas() -> None:
    one, other = Counts(2.4, 3, 1, 2), Counts(0.0, 0, 1, 0)
    assert category_quality(one).pq == 2.4 / 4.5
    assert category_quality(one).sq == 2.4 / 3
    assert category_quality(one).rq == 3 / 4.5
    assert category_quality(other).pq == category_quality(other).sq == 0.0
    mean, num = mean_quality([one, Counts(), other])
    assert num == 2 and mean is not None and mean.pq == 2.4 / 4.5 / 2
    assert mean_quality([Counts()]) == (None, 0)
