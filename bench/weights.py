"""Publishing weights to a store and loading them in another policy, beside copying their bytes.

Steady state: one version is retired for each that is published, as a run does it. What the first
versions pay for memory that nobody has touched yet is ``first_publish``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray

from bench.figure import Figure, figure
from bench.timing import interleaved, timed
from rewardtune.policies.weights import load_weights, pack_weights, packed_bytes
from rewardtune.records import Published, WeightBuffer
from rewardtune.transport.weights.file_weights import FileWeightStore
from rewardtune.transport.weights.ray_weights import join_ray_weights, start_ray_weights
from rewardtune.transport.weights.weight_store import WeightStore

SIZES_GB = (0.1, 0.5, 1.5)
NAMESPACE = "bench"
MEMORY_SIZES = 8
"""Memory that must be free, in sizes of the weights: two policies, their copies, the store's
versions, and room for whoever else is there."""
MAX_PEER_GB = 0.5
"""The peer needs three times the memory."""
NUM_COLD = 3
"""Publications that find no memory to use again: the new, the retiring and one in between."""
PEER = "ray.put(state_dict)"


def stores(*, is_quick: bool) -> Iterator[Figure]:
    for size_gb in SIZES_GB[:1] if is_quick else SIZES_GB:
        free_gb, needed_gb = _free_memory_gb(), MEMORY_SIZES * size_gb
        if free_gb < needed_gb:
            print(
                f"weights of {size_gb:g} GB are left out: that needs {needed_gb:.0f} GB of free "
                f"memory, there are {free_gb:.0f}",
                file=sys.stderr,
            )
            continue
        yield from store_figures(
            f"{size_gb:g}gb",
            num_bytes=int(size_gb * 1e9),
            num_rounds=3 if is_quick else 7,
            has_peer=size_gb <= MAX_PEER_GB,
        )


def _free_memory_gb() -> float:
    """What the kernel could hand out, caches included."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return float(fields["MemAvailable"].split()[0]) * 1024 / 1e9


def store_figures(
    size: str, *, num_bytes: int, num_rounds: int, has_peer: bool = True
) -> Iterator[Figure]:
    """Seconds to pack parameters, to publish them, and to fetch and copy them into others."""
    module = made_module(num_bytes, seed=0)
    used = np.empty(packed_bytes(module, dtype=torch.float32), np.uint8)
    packed = pack_weights(module, dtype=torch.float32, into=used)
    copy = copying(packed)

    pack = timed(functools.partial(pack_weights, module, dtype=torch.float32, into=used))
    seconds = interleaved({"pack": pack, "floor": copy}, num_rounds=num_rounds)
    yield figure(f"weights.pack.{size}", seconds["pack"], floor_seconds=seconds["floor"])
    with tempfile.TemporaryDirectory() as folder:
        store = FileWeightStore(Path(folder))
        reader = Reader(FileWeightStore(Path(folder)), num_bytes)
        yield from _figures("file", size, store, packed, copy, reader.load, num_rounds=num_rounds)
        del store, reader
    peer = module if has_peer else None
    del module, pack
    yield from _ray_figures(size, peer, packed, copy, num_rounds=num_rounds)


def _ray_figures(
    size: str,
    peer_module: nn.Module | None,
    packed: WeightBuffer,
    copy: Callable[[], float],
    *,
    num_rounds: int,
) -> Iterator[Figure]:
    num_bytes = len(packed.data_B)
    with _ray(object_store_bytes=max(100_000_000, (4 if peer_module is None else 8) * num_bytes)):
        store = start_ray_weights("weights", NAMESPACE, timeout_seconds=120)
        reader: Any = ray.remote(RayReader).options(num_cpus=0).remote(num_bytes)
        peer = None if peer_module is None else RayPeer(peer_module, reader)

        def load(published: Published) -> dict[str, float]:
            measured: dict[str, float] = ray.get(reader.load.remote(published))
            return measured

        yield from _figures(
            "ray", size, store, packed, copy, load, peer=peer, num_rounds=num_rounds
        )


@contextlib.contextmanager
def _ray(*, object_store_bytes: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="rt-", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,
            object_store_memory=object_store_bytes,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()


def _figures(
    kind: str,
    size: str,
    store: WeightStore,
    packed: WeightBuffer,
    copy: Callable[[], float],
    load: Callable[[Published], Mapping[str, float]],
    *,
    num_rounds: int,
    peer: RayPeer | None = None,
) -> Iterator[Figure]:
    version = 0

    def publish() -> float:
        nonlocal version
        version += 1
        packed.data_B[0] = version % 256
        start = time.perf_counter()
        store.publish(Published(0, version), packed)
        seconds = time.perf_counter() - start
        store.retire(before_version=version)
        loads.append(load(Published(0, version)))
        return seconds

    loads: list[Mapping[str, float]] = []
    first = publish()
    for _ in range(NUM_COLD):
        publish()
    ways: dict[str, Callable[[], float]] = {"publish": publish, "floor": copy}
    if peer is not None:
        ways["peer"] = peer.publish
    loads.clear()
    seconds = interleaved(ways, num_rounds=num_rounds)
    loaded = {name: float(np.median([each[name] for each in loads[1:]])) for name in loads[0]}
    yield figure(f"weights.{kind}.first_publish.{size}", first, floor_seconds=seconds["floor"])
    yield figure(
        f"weights.{kind}.publish.{size}",
        seconds["publish"],
        floor_seconds=seconds["floor"],
        peer=PEER if peer else None,
        peer_seconds=seconds.get("peer"),
    )
    yield figure(
        f"weights.{kind}.load.{size}",
        loaded["load"],
        floor_seconds=loaded["floor"],
        peer=PEER if peer else None,
        peer_seconds=float(np.median(peer.loads[1:])) if peer else None,
    )


class Reader:
    """Another policy of the same shapes, and a copy of as many bytes beside it."""

    def __init__(self, store: WeightStore, num_bytes: int) -> None:
        self._store = store
        self._module = made_module(num_bytes, seed=1)
        self._copied: NDArray[np.uint8] | None = None

    def load(self, published: Published) -> dict[str, float]:
        """Seconds of a load, and of the copy."""
        start = time.perf_counter()
        weights = self._store.fetch_unchecked(published)
        load_weights(self._module, weights)
        seconds = time.perf_counter() - start
        if self._copied is None:
            self._copied = np.ones(packed_bytes(self._module, dtype=torch.float32), np.uint8)
        assert isinstance(weights, WeightBuffer)
        return {"load": seconds, "floor": copying(weights, into=self._copied)()}


class RayReader:
    """The same as an actor."""

    def __init__(self, num_bytes: int) -> None:
        torch.set_num_threads(1)
        store = join_ray_weights("weights", NAMESPACE, timeout_seconds=120)
        self._reader = Reader(store, num_bytes)
        self._num_bytes = num_bytes
        self._peer_module: nn.Module | None = None

    def load(self, published: Published) -> dict[str, float]:
        return self._reader.load(published)

    def load_peer(self, reference: list[Any]) -> float:
        if self._peer_module is None:
            self._peer_module = made_module(self._num_bytes, seed=2)
        start = time.perf_counter()
        self._peer_module.load_state_dict(ray.get(reference[0]))
        return time.perf_counter() - start


class RayPeer:
    """What one would write first: tensors as they are into Ray's object store."""

    def __init__(self, module: nn.Module, reader: Any) -> None:
        self._module = module
        self._reader = reader
        self.loads: list[float] = []

    def publish(self) -> float:
        start = time.perf_counter()
        reference = ray.put(self._module.state_dict())
        seconds = time.perf_counter() - start
        self.loads.append(ray.get(self._reader.load_peer.remote([reference])))
        return seconds


def made_module(num_bytes: int, *, seed: int) -> nn.Module:
    """Matrices of 4 MiB with a bias each, like the blocks of a ViT."""
    torch.manual_seed(seed)
    num_blocks = max(1, num_bytes // (4 * (1024 + 1) * 1024))
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(num_blocks)))


def copying(packed: WeightBuffer, *, into: NDArray[np.uint8] | None = None) -> Callable[[], float]:
    """One copy of the bytes into memory that has been touched: no publication can be faster."""
    destination = np.ones_like(packed.data_B) if into is None else into
    return timed(lambda: np.copyto(destination, packed.data_B))
