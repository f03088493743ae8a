"""What every weight store promises, and what only stores between processes do."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rewardtune.records import CanaryLogProbs, PackedTensor, PackedWeights, Published
from rewardtune.records.weights import (
    TensorLayout,
    UncheckedWeights,
    WeightBuffer,
    contiguous,
    copy_weights,
    weights_digest,
)
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights import ray_weights
from rewardtune.transport.weights.file_weights import FileWeightStore
from rewardtune.transport.weights.ray_weights import (
    RayWeightStore,
    join_ray_weights,
    start_ray_weights,
)
from rewardtune.transport.weights.weight_store import (
    DamagedWeights,
    MemoryWeightStore,
    WeightsNotFound,
    WeightStore,
    WeightsUnavailable,
)

Reopen = Callable[[], WeightStore]
"""Another object for the same store, as another process would have."""

_names = (f"weights-{number}" for number in itertools.count())
NAMESPACE = "test-weights"


def _memory(_: pytest.FixtureRequest) -> Reopen:
    store = MemoryWeightStore()
    return lambda: store


def _files(request: pytest.FixtureRequest) -> Reopen:
    directory: Path = request.getfixturevalue("tmp_path")
    return lambda: FileWeightStore(directory / "weights")


@pytest.fixture(scope="session")
def shared_ray_store(ray_session: None) -> RayWeightStore:
    return start_ray_weights("shared", NAMESPACE)


def _ray(request: pytest.FixtureRequest) -> Reopen:
    store: RayWeightStore = request.getfixturevalue("shared_ray_store")
    registry: Any = store._registry
    # Starting a process for each test would take a second each.
    ray.get(registry.__ray_call__.remote(_emptied), timeout=60)
    return lambda: join_ray_weights("shared", NAMESPACE)


def _emptied(registry: Any) -> None:
    registry.__init__()


@pytest.fixture(params=[_memory, _files, pytest.param(_ray, marks=pytest.mark.alone)])
def reopen(request: pytest.FixtureRequest) -> Reopen:
    made: Reopen = request.param(request)
    return made


@pytest.fixture
def store(reopen: Reopen) -> WeightStore:
    return reopen()


def weights(value: int, *, num_bytes: int = 4) -> dict[str, PackedTensor]:
    data = np.full(num_bytes, value, dtype=np.uint8)
    return {"w": PackedTensor(data_B=data, dtype="float32", shape=(num_bytes // 4,))}


def held(store: WeightStore, term: int, versions: range) -> list[int]:
    found = []
    for version in versions:
        try:
            store.fetch(Published(term, version))
        except WeightsNotFound:
            continue
        found.append(version)
    return found


def test_what_was_published_is_fetched(reopen: Reopen) -> None:
    reopen().publish(Published(0, 3), weights(7))
    assert reopen().fetch(Published(0, 3))["w"].data_B.tolist() == [7] * 4


def test_every_tensor_keeps_its_name_bytes_dtype_and_shape(reopen: Reopen) -> None:
    sent = {
        "scalar": PackedTensor(np.arange(4, dtype=np.uint8), "float32", ()),
        "none": PackedTensor(np.empty(0, np.uint8), "float32", (0, 3)),
        "a.kernel": PackedTensor(np.arange(12, dtype=np.uint8), "bfloat16", (2, 3)),
    }
    reopen().publish(Published(0, 0), sent)
    got = reopen().fetch(Published(0, 0))
    assert list(got) == list(sent)
    for name, tensor in sent.items():
        assert (got[name].dtype, got[name].shape) == (tensor.dtype, tensor.shape)
        assert got[name].data_B.tobytes() == tensor.data_B.tobytes()


def test_nothing_at_all_can_be_published(store: WeightStore) -> None:
    store.publish(Published(0, 0), {})
    assert dict(store.fetch(Published(0, 0))) == {}


def test_fetching_what_nobody_published_says_what_there_is(store: WeightStore) -> None:
    store.publish(Published(1, 2), weights(0))
    with pytest.raises(WeightsNotFound, match=r"1/3 .* there are: 1/2"):
        store.fetch(Published(1, 3))
    with pytest.raises(WeightsNotFound, match="1/3"):
        store.manifest(Published(1, 3))


def test_an_older_term_is_fenced_off(reopen: Reopen) -> None:
    zombie, store = reopen(), reopen()
    zombie.publish(Published(1, 5), weights(0))
    store.publish(Published(2, 5), weights(0))
    with pytest.raises(StaleTerm, match="term 2 has taken over"):
        zombie.publish(Published(1, 6), weights(1))
    assert held(store, 1, range(8)) == []


def test_a_new_term_forgets_the_versions_of_the_old_one(reopen: Reopen) -> None:
    first, second = reopen(), reopen()
    first.publish(Published(0, 5), weights(0))
    first.pin(Published(0, 5))
    second.publish(Published(1, 4), weights(1))
    with pytest.raises(WeightsNotFound):
        first.fetch(Published(0, 5))


def test_retired_versions_are_gone_and_the_others_stay(store: WeightStore) -> None:
    for version in range(4):
        store.publish(Published(0, version), weights(version))
    store.retire(before_version=2)
    assert held(store, 0, range(5)) == [2, 3]
    assert store.fetch(Published(0, 2))["w"].data_B[0] == 2


def test_a_zombie_retires_nothing_of_the_new_term(reopen: Reopen, request: object) -> None:
    zombie, store = reopen(), reopen()
    if isinstance(zombie, MemoryWeightStore):
        return  # one object, one writer
    zombie.publish(Published(0, 9), weights(0))
    store.publish(Published(1, 4), weights(0))
    zombie.retire(before_version=9)
    assert held(store, 1, range(8)) == [4]


def test_a_pinned_version_outlives_its_retirement_until_every_pin_is_gone(reopen: Reopen) -> None:
    learner, evaluator = reopen(), reopen()
    for version in range(3):
        learner.publish(Published(0, version), weights(version))
    evaluator.pin(Published(0, 1))
    evaluator.pin(Published(0, 1))
    learner.retire(before_version=2)
    assert held(learner, 0, range(3)) == [1, 2]
    evaluator.unpin(Published(0, 1))
    learner.retire(before_version=2)
    assert evaluator.fetch(Published(0, 1))["w"].data_B[0] == 1
    evaluator.unpin(Published(0, 1))
    learner.retire(before_version=2)
    assert held(learner, 0, range(3)) == [2]
    evaluator.unpin(Published(0, 1))  # once too often


def test_what_is_not_there_cannot_be_pinned(store: WeightStore) -> None:
    with pytest.raises(WeightsNotFound):
        store.pin(Published(0, 1))


def test_publishing_again_changes_nothing(reopen: Reopen) -> None:
    learner, reader = reopen(), reopen()
    learner.publish(Published(0, 1), weights(1))
    learner.publish(Published(0, 1), weights(1))
    learner.reassert()
    assert reader.fetch(Published(0, 1))["w"].data_B.tolist() == [1] * 4


def test_a_manifest_says_what_is_there(reopen: Reopen) -> None:
    canary = CanaryLogProbs(
        ordinals=(3, 5),
        tokens_GST=np.arange(12, dtype=np.int32).reshape(2, 2, 3),
        log_probs_GST=np.linspace(-9, 0, 12, dtype=np.float32).reshape(2, 2, 3),
    )
    packed = contiguous(weights(7, num_bytes=100))
    reopen().publish(Published(2, 3), packed, canary=canary)
    manifest = reopen().manifest(Published(2, 3))
    assert manifest.published == Published(2, 3)
    assert manifest.digest == weights_digest(packed)
    assert (manifest.num_bytes, manifest.tensors) == (128, packed.layout)
    assert manifest.canary is not None
    assert manifest.canary.ordinals == (3, 5)
    np.testing.assert_array_equal(manifest.canary.tokens_GST, canary.tokens_GST)
    np.testing.assert_array_equal(manifest.canary.log_probs_GST, canary.log_probs_GST)
    assert manifest.canary.log_probs_GST.dtype == np.float32


def test_a_view_of_a_retired_version_keeps_its_bytes(reopen: Reopen) -> None:
    """Even when its memory would be the next to be written again."""
    learner, reader = reopen(), reopen()
    size = 1 << 20
    learner.publish(Published(0, 0), weights(1, num_bytes=size))
    view = reader.fetch(Published(0, 0))["w"].data_B
    for version in range(1, 6):
        learner.publish(Published(0, version), weights(version + 1, num_bytes=size))
        learner.retire(before_version=version)
    assert np.all(view == 1)
    assert np.all(reader.fetch(Published(0, 5))["w"].data_B == 6)


# The digest.


@given(st.binary(min_size=1, max_size=9000), st.data())
def test_any_changed_byte_changes_the_digest(content: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(content) - 1))
    by = data.draw(st.integers(1, 255))
    sent = contiguous({"w": PackedTensor(np.frombuffer(content, np.uint8), "uint8", ())})
    changed = WeightBuffer(sent.data_B.copy(), sent.layout)
    changed.data_B[at] ^= by
    assert weights_digest(changed) != weights_digest(sent)


def test_swapped_pages_and_renamed_tensors_change_the_digest() -> None:
    data = np.arange(3 * 4096, dtype=np.uint32).view(np.uint8)
    sent = contiguous({"w": PackedTensor(data, "uint8", ())})
    swapped = WeightBuffer(np.concatenate([data[4096:], data[:4096]]), sent.layout)
    renamed = contiguous({"v": PackedTensor(data, "uint8", ())})
    assert len({weights_digest(each) for each in (sent, swapped, renamed)}) == 3


@pytest.mark.parametrize("num_pages", [0, 1, 5, 511, 512, 1300])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_a_copy_has_all_bytes_and_their_digest(num_pages: int, num_threads: int) -> None:
    data_B = np.random.default_rng(1).integers(0, 256, 128 + 4096 * num_pages, dtype=np.uint8)
    weights = WeightBuffer(data_B, [TensorLayout("w", "uint8", data_B.shape, 0, len(data_B))])
    into_B = np.zeros_like(data_B)
    assert copy_weights(weights, into_B, num_threads=num_threads) == weights_digest(weights)
    np.testing.assert_array_equal(into_B, data_B)


@pytest.mark.parametrize("num_pages", [0, 1, 2, 5, 64])
@pytest.mark.parametrize("num_threads", [2, 3, 4])
def test_threads_find_the_digest_that_one_finds(num_pages: int, num_threads: int) -> None:
    data_B = np.random.default_rng(0).integers(0, 256, 64 + 4096 * num_pages, dtype=np.uint8)
    layout = [TensorLayout("w", "float32", (len(data_B) // 4,), 0, len(data_B))]
    weights = WeightBuffer(data_B, layout)
    assert weights_digest(weights, num_threads=num_threads) == weights_digest(weights)
    # By its definition.
    words = np.frombuffer(data_B.tobytes(), np.uint64)
    pages = [words[i : i + 512] for i in range(0, 512 * num_pages, 512)]
    sums = [sum(map(int, page)) % 2**64 for page in [*pages, words[512 * num_pages :]]]
    expected = hashlib.sha256(json.dumps([asdict(at) for at in layout]).encode())
    expected.update(np.array(sums, np.uint64).tobytes())
    assert weights_digest(weights) == expected.hexdigest()


# Files.


def test_a_file_with_one_changed_byte_is_named(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3, num_bytes=100_000))
    path = tmp_path / "00000000-00000001.weights"
    with path.open("r+b") as file:
        file.seek(54_321)
        file.write(b"\x02")
    with pytest.raises(DamagedWeights, match=r"00000000-00000001\.weights has digest .* changed"):
        store.fetch(Published(0, 1))


def test_a_changed_byte_is_found_by_whoever_reads_it_unchecked(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3, num_bytes=100_000))
    path = tmp_path / "00000000-00000001.weights"
    with path.open("r+b") as file:
        file.seek(54_321)
        file.write(b"\x02")
    fetched = store.fetch_unchecked(Published(0, 1))
    assert isinstance(fetched, UncheckedWeights)
    with pytest.raises(DamagedWeights, match=r"00000001\.weights has digest .* changed"):
        fetched.require(weights_digest(fetched))


def test_files_are_written_again_and_those_removed_are_let_go(tmp_path: Path) -> None:
    """Also by a new learner; a file that is read, or was cut off, is left alone."""
    store, size = FileWeightStore(tmp_path), 1 << 16

    def publish(version: int) -> int:
        store.publish(Published(0, version), weights(version, num_bytes=size))
        store.retire(before_version=version)
        found = store.fetch(Published(0, version))["w"].data_B
        assert np.all(found == version)
        assert len(found) == size
        return (tmp_path / f"00000000-{version:08d}.weights").stat().st_ino

    used = [publish(version) for version in range(1, 5)]
    assert used[2:] == used[:2]
    (spare,) = tmp_path.glob("spare-*")
    os.truncate(spare, 5000)
    assert publish(5) not in used
    store = FileWeightStore(tmp_path)
    assert publish(6) in used
    view = store.fetch(Published(0, 6))["w"].data_B
    for version in range(7, 12):
        publish(version)
    assert np.all(view == 6)
    held = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line
    ]
    assert len([line for line in held if "(deleted)" in line]) <= 1  # the view
    assert len(held) <= 4


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3, num_bytes=100_000))
    path = tmp_path / "00000000-00000001.weights"
    os.truncate(path, 50_000)
    with pytest.raises(DamagedWeights, match=r"00000001\.weights has 50000 bytes, .* cut off"):
        store.fetch(Published(0, 1))


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"term": 0'])
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3))
    (tmp_path / "00000000-00000001.json").write_text(text)
    with pytest.raises(DamagedWeights, match=r"00000001\.json is no manifest"):
        store.fetch(Published(0, 1))


def test_a_manifest_of_other_sizes_is_found_out(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3, num_bytes=8))
    path = tmp_path / "00000000-00000001.json"
    path.write_text(path.read_text().replace('"offset": 0', '"offset": 4096'))
    with pytest.raises(DamagedWeights, match=r"00000001\.json is damaged: .* need 4160 bytes"):
        store.fetch(Published(0, 1))


def test_without_a_manifest_nothing_is_published(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3))
    (tmp_path / "00000000-00000001.json").unlink()
    with pytest.raises(WeightsNotFound):
        store.fetch(Published(0, 1))
    store.publish(Published(0, 1), weights(4))
    assert store.fetch(Published(0, 1))["w"].data_B[0] == 4


def test_retired_files_are_written_again_and_no_others_pile_up(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    inodes = set()
    for version in range(8):
        store.publish(Published(0, version), weights(version, num_bytes=5000 - version * 64))
        inodes.add((tmp_path / f"00000000-{version:08d}.weights").stat().st_ino)
        store.retire(before_version=version - 1)
        assert np.all(store.fetch(Published(0, version))["w"].data_B == version)
    assert len(inodes) <= 4
    assert len(list(tmp_path.glob("*.weights"))) == 2
    assert len(list(tmp_path.iterdir())) <= 2 * 2 + 2 + 1
    FileWeightStore(tmp_path).publish(Published(1, 0), weights(9))
    assert {path.name for path in tmp_path.glob("0*")} == {
        "00000001-00000000.weights",
        "00000001-00000000.json",
    }


def test_fetched_weights_cannot_be_written_to(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    store.publish(Published(0, 1), weights(3))
    with pytest.raises(ValueError, match="read-only"):
        store.fetch(Published(0, 1))["w"].data_B[0] = 1


def test_a_pin_goes_with_the_process_that_set_it(tmp_path: Path) -> None:
    store = FileWeightStore(tmp_path)
    for version in range(2):
        store.publish(Published(0, version), weights(version))
    program = (
        "import sys; from pathlib import Path; from rewardtune.records import Published\n"
        "from rewardtune.transport.weights.file_weights import FileWeightStore\n"
        "store = FileWeightStore(Path(sys.argv[1])); store.pin(Published(0, 0))\n"
        "print(store.fetch(Published(0, 0))['w'].data_B[0], flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "0\n"
        store.retire(before_version=1)
        assert held(store, 0, range(2)) == [0, 1]
        reader.kill()
        reader.wait()
    store.retire(before_version=1)
    assert held(store, 0, range(2)) == [1]


# Ray.


@pytest.fixture
def ray_store(ray_session: object) -> Iterator[tuple[RayWeightStore, str]]:
    name = next(_names)
    store = start_ray_weights(name, NAMESPACE)
    yield store, name
    ray.kill(store._registry)


def _actor(build: type[Any], *arguments: str) -> Any:
    return ray.remote(build).options(num_cpus=0).remote(*arguments)


class _Learner:
    """A publisher in a process of its own."""

    def __init__(self, name: str) -> None:
        self._store = join_ray_weights(name, NAMESPACE)

    def publish(self, term: int, version: int, value: int) -> int:
        self._store.publish(Published(term, version), weights(value, num_bytes=1 << 20))
        return os.getpid()


class _Reader:
    def __init__(self, name: str) -> None:
        self._store = join_ray_weights(name, NAMESPACE)
        self._held: PackedWeights = {}

    def first_byte(self, term: int, version: int) -> tuple[int, bool]:
        self._held = self._store.fetch(Published(term, version))
        data_B = self._held["w"].data_B
        return int(data_B[0]), data_B.flags.writeable

    def still(self) -> int:
        return int(self._held["w"].data_B.max())


def test_a_killed_learner_takes_its_weights_along_and_the_next_term_brings_new_ones(
    ray_store: tuple[RayWeightStore, str],
) -> None:
    store, name = ray_store
    learner = _actor(_Learner, name)
    reader = _actor(_Reader, name)
    ray.get(learner.publish.remote(0, 3, 6), timeout=60)
    pid = ray.get(learner.publish.remote(0, 4, 7), timeout=60)
    assert pid != os.getpid()
    assert ray.get(reader.first_byte.remote(0, 4), timeout=60) == (7, False)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:  # until Ray has noticed
        try:
            store.fetch(Published(0, 3))
        except WeightsNotFound:
            break
        assert time.monotonic() < deadline
    assert ray.get(reader.still.remote(), timeout=60) == 7
    store.publish(Published(1, 4), weights(8, num_bytes=1 << 20))
    assert ray.get(reader.first_byte.remote(1, 4), timeout=60) == (8, False)


def test_a_restarted_registry_knows_nothing_until_the_learner_asserts_it(
    ray_store: tuple[RayWeightStore, str],
) -> None:
    store, name = ray_store
    for version in range(2):
        store.publish(Published(0, version), weights(version))
    ray.kill(store._registry, no_restart=False)

    def joined_when_empty() -> RayWeightStore:
        reader = join_ray_weights(name, NAMESPACE)
        assert held(reader, 0, range(2)) == []
        return reader

    reader = _eventually(joined_when_empty)
    store.reassert()
    assert held(reader, 0, range(3)) == [0, 1]


def test_a_registry_that_is_gone_is_unavailable(ray_store: tuple[RayWeightStore, str]) -> None:
    store, _ = ray_store
    ray.kill(store._registry)
    deadline = time.monotonic() + 30

    def fetch_until_killed() -> None:
        while time.monotonic() < deadline:
            with suppress(WeightsNotFound):
                store.fetch(Published(0, 0))

    with pytest.raises(WeightsUnavailable, match="away"):
        fetch_until_killed()


def test_a_registry_that_does_not_answer_in_time_is_unavailable(ray_session: object) -> None:
    slow = _actor(_Slow)
    store = RayWeightStore(slow, timeout_seconds=0.2)
    with pytest.raises(WeightsUnavailable, match=r"did not answer within 0\.2 s"):
        store.fetch(Published(0, 0))
    ray.kill(slow)


class _Slow:
    def find(self, published: Published) -> None:
        signal.pause()


def test_joining_a_store_that_nobody_started_says_so(ray_session: object) -> None:
    with pytest.raises(WeightsUnavailable, match="no weight store 'absent' .* start the run"):
        join_ray_weights("absent", NAMESPACE)


def test_without_a_cluster_joining_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(WeightsUnavailable, match="belongs to no Ray cluster"):
        join_ray_weights("absent", NAMESPACE)


def test_bytes_that_arrive_damaged_are_found_out(
    ray_store: tuple[RayWeightStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = ray_store
    store.publish(Published(0, 0), weights(1))
    monkeypatch.setattr(ray_weights, "UncheckedWeights", _damaged)
    with pytest.raises(DamagedWeights, match="was published"):
        store.fetch(Published(0, 0))


def _damaged(
    data_B: NDArray[np.uint8], layout: Sequence[TensorLayout], **said: Any
) -> UncheckedWeights:
    copy = data_B.copy()
    copy[1] ^= 0x10
    return UncheckedWeights(copy, layout, **said)


def _eventually(way: Callable[[], RayWeightStore]) -> RayWeightStore:
    deadline = time.monotonic() + 30
    while True:
        try:
            return way()
        except (WeightsUnavailable, AssertionError):
            if time.monotonic() > deadline:
                raise
