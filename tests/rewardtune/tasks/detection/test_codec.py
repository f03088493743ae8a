"""The token layout against the published reader, and round trips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rewardtune.tasks.detection.codec import Boxes, DetectionCodec

FIXTURE = np.load(Path(__file__).parents[3] / "fixtures" / "detection_reward.npz")
CODEC = DetectionCodec(num_classes=80, max_boxes=12)


def random_boxes(num_boxes: int, *, seed: int = 0) -> Boxes:
    rng = np.random.default_rng(seed)
    corner = np.sort(rng.random((num_boxes, 2, 2)), axis=1)
    return Boxes(
        yxyx_N4=corner.reshape(num_boxes, 4),
        label_N=rng.integers(0, 80, num_boxes),
        confidence_N=np.full(num_boxes, 2),
    )


@pytest.mark.parametrize("kind", ["pred", "gt"])
def test_decoding_agrees_with_the_published_reader(kind: str) -> None:
    boxes = CODEC.decode(FIXTURE[f"in/{kind}_tokens"])
    np.testing.assert_allclose(boxes.yxyx_N4, FIXTURE[f"out/{kind}_boxes"], rtol=0, atol=1e-7)
    np.testing.assert_array_equal(boxes.label_N, FIXTURE[f"out/{kind}_labels"])
    np.testing.assert_array_equal(boxes.confidence_N, FIXTURE[f"out/{kind}_confs"])


def test_the_vocabulary_is_the_published_one() -> None:
    assert DetectionCodec(num_classes=80, max_boxes=100).vocab_size == 1084
    assert DetectionCodec(num_classes=365, max_boxes=100).vocab_size == 1369
    assert DetectionCodec(num_classes=80, max_boxes=100).sequence_length == 600


@given(seed=st.integers(0, 1000), num_boxes=st.integers(0, 12))
def test_decoding_undoes_encoding_up_to_order_and_rounding(seed: int, num_boxes: int) -> None:
    boxes = random_boxes(num_boxes, seed=seed)
    tokens_T = CODEC.encode(boxes, rng=np.random.default_rng(seed))
    assert tokens_T.shape == (72,) and tokens_T.dtype == np.int32
    read = CODEC.decode(tokens_T)
    assert read.is_present_N.tolist() == [True] * num_boxes + [False] * (12 - num_boxes)
    order = np.random.default_rng(seed).permutation(num_boxes)
    found = read[read.is_present_N]
    np.testing.assert_allclose(found.yxyx_N4, boxes.yxyx_N4[order], rtol=0, atol=0.0005)
    np.testing.assert_array_equal(found.label_N, boxes.label_N[order])
    np.testing.assert_array_equal(found.confidence_N, 2)


@given(seed=st.integers(0, 1000), num_boxes=st.integers(0, 20))
def test_left_to_right_is_by_the_left_edge_then_the_upper_of_the_same_boxes(
    seed: int, num_boxes: int
) -> None:
    boxes = random_boxes(num_boxes, seed=seed)
    boxes.yxyx_N4[::3, 1] = 0.25
    draws = [np.random.default_rng(seed) for _ in range(2)]
    mixed = CODEC.encode(boxes, rng=draws[0]).reshape(-1, 6)
    lined = CODEC.encode(boxes, order="left_to_right", rng=draws[1]).reshape(-1, 6)
    found = lined[lined[:, 5] > 0]
    corners = [(x0, y0) for y0, x0, *_ in found.tolist()]
    assert corners == sorted(corners)
    assert sorted(map(tuple, lined.tolist())) == sorted(map(tuple, mixed.tolist()))
    assert draws[0].bit_generator.state == draws[1].bit_generator.state


def test_of_too_many_boxes_a_random_subset_is_kept() -> None:
    boxes = random_boxes(40)
    seen = set()
    for seed in range(40):
        read = CODEC.decode(CODEC.encode(boxes, rng=np.random.default_rng(seed)))
        assert read.is_present_N.all()
        seen |= {tuple(row) for row in CODEC.levels(read.yxyx_N4).tolist()}
    assert seen == {tuple(row) for row in CODEC.levels(boxes.yxyx_N4).tolist()}


@given(arrays(np.int32, st.tuples(st.integers(0, 3), st.integers(0, 40))))
def test_garbage_decodes_into_valid_ranges(tokens_ST: np.ndarray) -> None:
    boxes = CODEC.decode(tokens_ST)
    assert boxes.label_N.shape == (tokens_ST.shape[0], tokens_ST.shape[1] // 6)
    assert np.all((boxes.yxyx_N4 >= 0) & (boxes.yxyx_N4 <= 1))
    assert np.all((boxes.label_N >= 0) & (boxes.label_N < 80))
    assert np.all((boxes.confidence_N >= 0) & (boxes.confidence_N <= 2))


def test_tokens_of_another_kind_are_clipped_into_the_slot() -> None:
    boxes = CODEC.decode(np.array([0, 1004, 3, 1003, 500, 2, 9, 9]))
    np.testing.assert_array_equal(boxes.yxyx_N4, [[0.0, 1.0, 0.0, 1.0]])
    assert boxes.label_N.tolist() == [0]


def test_slot_positions_name_classes_and_confidences() -> None:
    codec = DetectionCodec(num_classes=3, max_boxes=2)
    assert codec.class_positions_P.tolist() == [4, 10]
    assert codec.confidence_positions_P.tolist() == [5, 11]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (Boxes(np.array([[0, 0, np.nan, 1]]), np.array([0]), np.array([2])), "fractions"),
        (Boxes(np.array([[0, 0, 1.1, 1]]), np.array([0]), np.array([2])), "fractions"),
        (Boxes(np.array([[0, 0, 1.0, 1]]), np.array([80]), np.array([2])), "classes"),
        (Boxes(np.array([[0, 0, 1.0, 1]]), np.array([0]), np.array([0])), "confidences"),
    ],
)
def test_boxes_that_no_token_can_say_are_refused(boxes: Boxes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CODEC.encode(boxes, rng=np.random.default_rng(0))


def test_tokens_must_be_integers() -> None:
    with pytest.raises(ValueError, match="integers"):
        CODEC.decode(np.array([1.0, np.nan]))
