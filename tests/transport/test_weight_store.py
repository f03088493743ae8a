import numpy as np
import pytest

from records import PackedTensor, Published
from transport.weight_store import MemoryWeightStore, StaleTerm, WeightsNotFound


def weights(value: int) -> dict[str, PackedTensor]:
    data = np.full(4, value, dtype=np.uint8)
    return {"w": PackedTensor(data_B=data, dtype="float32", shape=(1,))}


def test_what_was_published_is_fetched() -> None:
    store = MemoryWeightStore()
    store.publish(Published(0, 3), weights(7))
    assert store.fetch(Published(0, 3))["w"].data_B.tolist() == [7] * 4


def test_fetching_what_nobody_published_says_what_there_is() -> None:
    store = MemoryWeightStore()
    store.publish(Published(1, 2), weights(0))
    with pytest.raises(WeightsNotFound, match=r"1/3 .* there are: 1/2"):
        store.fetch(Published(1, 3))


def test_an_older_term_is_fenced_off() -> None:
    store = MemoryWeightStore()
    store.publish(Published(2, 5), weights(0))
    with pytest.raises(StaleTerm, match="term 2 has taken over"):
        store.publish(Published(1, 6), weights(1))


def test_a_new_term_forgets_the_versions_of_the_old_one() -> None:
    store = MemoryWeightStore()
    store.publish(Published(0, 5), weights(0))
    store.publish(Published(1, 4), weights(1))
    with pytest.raises(WeightsNotFound):
        store.fetch(Published(0, 5))


def test_retired_versions_are_gone_and_the_others_stay() -> None:
    store = MemoryWeightStore()
    for version in range(4):
        store.publish(Published(0, version), weights(version))
    store.retire(before_version=2)
    with pytest.raises(WeightsNotFound):
        store.fetch(Published(0, 1))
    assert store.fetch(Published(0, 2))["w"].data_B[0] == 2
