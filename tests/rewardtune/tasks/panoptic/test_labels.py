"""Maps become small numbers, and nothing else changes.

Axes: S samples, H height, W width, L ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardtune.tasks.panoptic.labels import labels_of_ids, labels_of_two_channels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    highest=st.sampled_from([2, 9, 300, 2**24 - 1, 2**32 - 1]),
    share=st.sampled_from([0.02, 0.5, 1.0]),
)
def test_each_pixel_gets_the_place_of_its_id(seed: int, highest: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    ids_L = rng.permutation(np.unique(rng.integers(0, highest, size=20, endpoint=True)))
    listed_L = ids_L[: len(ids_L) // 2 + 1]
    size = (int(rng.integers(1, 12)), int(rng.integers(1, 90)))
    changes_N = rng.random(size[0] * size[1]) < share
    id_HW = ids_L[np.cumsum(changes_N) % len(ids_L)].reshape(size)
    label_HW, area_L = labels_of_ids(id_HW, listed_L)
    assert label_HW.dtype == np.uint8
    for place, identity in enumerate(listed_L):
        np.testing.assert_array_equal(label_HW == place, id_HW == identity)
        assert area_L[place] == np.sum(id_HW == identity)
    np.testing.assert_array_equal(label_HW == len(listed_L), ~np.isin(id_HW, listed_L))
    assert area_L.sum() == id_HW.size


def test_more_than_255_ids_need_wider_labels() -> None:
    id_HW = np.arange(600).reshape(20, 30) * 1000
    label_HW, area_L = labels_of_ids(id_HW, id_HW.reshape(-1))
    assert label_HW.dtype == np.uint16
    np.testing.assert_array_equal(label_HW.reshape(-1), np.arange(600))
    np.testing.assert_array_equal(area_L, [1] * 600 + [0])
    with pytest.raises(ValueError, match="65535 segments at most"):
        labels_of_ids(id_HW, np.arange(2**16))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_classes=st.integers(1, 140),
    num_instances=st.integers(1, 120),
    share=st.sampled_from([0.02, 0.3, 1.0]),
)
@pytest.mark.slow
def test_pairs_of_class_and_instance_keep_apart(
    seed: int, num_classes: int, num_instances: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    size = (2, int(rng.integers(1, 12)), int(rng.integers(1, 90)))
    run_N = np.cumsum(rng.random(2 * size[1] * size[2]) < share)
    class_SHW = rng.integers(num_classes, size=run_N.max() + 1)[run_N].reshape(size)
    instance_SHW = rng.integers(num_instances, size=run_N.max() + 1)[run_N].reshape(size)
    label_SHW, category_SP = labels_of_two_channels(class_SHW, instance_SHW)
    assert label_SHW.dtype == (np.uint8 if category_SP.shape[1] <= 256 else np.uint16)
    for s in range(2):
        # The class can be read back, and labels and pairs stand for each other.
        np.testing.assert_array_equal(category_SP[s][label_SHW[s]], class_SHW[s] - 1)
        np.testing.assert_array_equal(label_SHW[s] == 0, class_SHW[s] == 0)
        is_segment_HW = class_SHW[s] > 0
        pairs = {
            (int(c), int(i), int(label))
            for c, i, label in zip(
                class_SHW[s][is_segment_HW],
                instance_SHW[s][is_segment_HW],
                label_SHW[s][is_segment_HW],
                strict=True,
            )
        }
        assert len(pairs) == len({p[:2] for p in pairs}) == len({p[2] for p in pairs})


def test_two_channels_of_many_segments_and_of_nonsense() -> None:
    number_HW = np.arange(70_000).reshape(1, 250, 280)
    label_SHW, category_SP = labels_of_two_channels(
        number_HW[:, :100] % 250 + 1, number_HW[:, :100] // 250
    )
    assert label_SHW.dtype == np.uint16 and category_SP.shape == (1, 28_001)
    with pytest.raises(ValueError, match="sample 0 has more than 65535 segments"):
        labels_of_two_channels(np.ones_like(number_HW), number_HW)
    bad: list[tuple[Any, Any, str]] = [
        (number_HW - 1, number_HW, "class map must be in"),
        (number_HW, number_HW.astype(np.int32) - 1, "instance map has -1"),
        (number_HW * 1.0, number_HW, "class map must be of integers"),
        (number_HW, number_HW[:, 1:], "of one shape"),
        (number_HW[0], number_HW[0], "must be"),
    ]
    for class_SHW, instance_SHW, message in bad:
        with pytest.raises(ValueError, match=message):
            labels_of_two_channels(class_SHW, instance_SHW)
