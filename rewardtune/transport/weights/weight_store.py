"""Where the learner publishes weights and samplers fetch them.

Every implementation keeps the rules of ``WeightStore`` and passes
tests/rewardtune/transport/weights/test_weight_store.py: memory here, ``ray_weights`` between the
processes of a Ray cluster, ``file_weights`` between processes of one machine without Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rewardtune.records import (
    CanaryLogProbs,
    PackedWeights,
    Published,
    WeightBuffer,
    WeightManifest,
)
from rewardtune.records.weights import (
    UncheckedWeights,
    contiguous,
    copy_weights,
    manifest_of,
    num_threads_of,
    weights_digest,
)
from rewardtune.transport.term import StaleTerm

T = TypeVar("T")


class WeightsNotFound(LookupError):
    """Nobody published these weights, or they were retired: the caller asked too early or late."""


class WeightsUnavailable(ConnectionError):
    """The store cannot be reached, or did not answer in time: try again."""


class DamagedWeights(RuntimeError):
    """These are not the bytes that were published, or a policy does not act as they say."""


class WeightStore(Protocol):
    """Published sets of weights by term and policy version.

    Nobody waits here: ``fetch`` of what is not there raises. A higher term's first publication
    forgets everything of lower ones. Stores between processes may raise ``WeightsUnavailable``
    from every method; doing it again is right.
    """

    def publish(
        self, published: Published, weights: PackedWeights, *, canary: CanaryLogProbs | None = None
    ) -> None:
        """Make weights available. The store keeps the arrays; the caller must not write to them.

        Stores between processes copy: there the caller may write again once this returns.

        Raises:
            StaleTerm: a higher term has published already.
        """
        ...

    def fetch(self, published: Published) -> PackedWeights:
        """Views that stay valid for as long as they are held, retired or not; read-only.

        Raises:
            WeightsNotFound: nothing is published under that name.
            DamagedWeights: what is there is not what was published.
        """
        ...

    def fetch_unchecked(self, published: Published) -> PackedWeights:
        """The same for one who copies them all with ``load_weights``, which finds the damage.

        Reading them for their digest alone takes half as long as copying them.

        Raises:
            WeightsNotFound: nothing is published under that name.
            DamagedWeights: what is there cannot be weights.
        """
        ...

    def manifest(self, published: Published) -> WeightManifest:
        """Raises:
        WeightsNotFound: nothing is published under that name.
        """
        ...

    def retire(self, *, before_version: int) -> None:
        """Forget versions below ``before_version`` that are not pinned.

        Of the term that this object has published under; if it has not, nothing happens. A pinned
        one goes once it is unpinned, with the next call at the latest.
        """
        ...

    def pin(self, published: Published) -> None:
        """Keep a version that would retire, until as many calls of ``unpin``.

        Raises:
            WeightsNotFound: nothing is published under that name.
        """
        ...

    def unpin(self, published: Published) -> None:
        """Of what is not pinned: nothing happens."""
        ...

    def reassert(self) -> None:
        """Publish again what this object published and the store has lost, if it can lose any."""
        ...


class WeightRegistry(Generic[T]):
    """What is published: the rules of ``WeightStore`` over items of any kind. No locks."""

    def __init__(self) -> None:
        self._items: dict[Published, T] = {}
        self._pins: dict[Published, int] = {}
        self._term = -1
        self._frontier = 0

    def publish(self, published: Published, item: T) -> None:
        """Raises:
        StaleTerm: a higher term has published already.
        """
        if published.term < self._term:
            raise stale_term(published, newest=self._term)
        if published.term > self._term:
            self._items.clear()
            self._pins.clear()
            self._term, self._frontier = published.term, 0
        self._items[published] = item

    def find(self, published: Published) -> T:
        """Raises:
        WeightsNotFound: nothing is published under that name.
        """
        if published not in self._items:
            raise weights_not_found(published, self._items)
        return self._items[published]

    def missing(self, wanted: Iterable[Published]) -> list[Published]:
        return [published for published in wanted if published not in self._items]

    def retire(self, *, term: int, before_version: int) -> None:
        # A learner that was taken over may be ahead of the one that goes on.
        if term == self._term:
            self._frontier = max(self._frontier, before_version)
            self._sweep()

    def pin(self, published: Published) -> None:
        self.find(published)
        self._pins[published] = self._pins.get(published, 0) + 1

    def unpin(self, published: Published) -> None:
        remaining = self._pins.pop(published, 0) - 1
        if remaining > 0:
            self._pins[published] = remaining
        self._sweep()

    def _sweep(self) -> None:
        for published in [p for p in self._items if p.policy_version < self._frontier]:
            if published not in self._pins:
                del self._items[published]


class MemoryWeightStore:
    """Weights within one process. One writer; no locks."""

    def __init__(self) -> None:
        self._registry = WeightRegistry[tuple[PackedWeights, CanaryLogProbs | None]]()
        self._term = -1

    def publish(
        self, published: Published, weights: PackedWeights, *, canary: CanaryLogProbs | None = None
    ) -> None:
        self._registry.publish(published, (weights, canary))
        self._term = published.term

    def fetch(self, published: Published) -> PackedWeights:
        return self._registry.find(published)[0]

    def fetch_unchecked(self, published: Published) -> PackedWeights:
        return self.fetch(published)

    def manifest(self, published: Published) -> WeightManifest:
        # Hashed when somebody asks: nobody does in most runs of one process.
        weights, canary = self._registry.find(published)
        return manifest_of(published, contiguous(weights), canary=canary)

    def retire(self, *, before_version: int) -> None:
        self._registry.retire(term=self._term, before_version=before_version)

    def pin(self, published: Published) -> None:
        self._registry.pin(published)

    def unpin(self, published: Published) -> None:
        self._registry.unpin(published)

    def reassert(self) -> None:
        """Memory loses nothing."""


def with_digest(weights: WeightBuffer, store: Callable[[], T]) -> tuple[T, str]:
    """What ``store`` returns, and the digest of the weights, computed meanwhile by a thread.

    Both wait for memory and neither for the interpreter: where a second core is free, the digest
    costs no time.
    """
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(weights_digest, weights)
        return store(), digest.result()


def found_digest(weights: WeightBuffer) -> str:
    """The digest of weights that are not written to, by as many cores as make it faster."""
    return weights_digest(weights, num_threads=num_threads_of(weights))


def checked(weights: UncheckedWeights) -> WeightBuffer:
    """The same, read once.

    Raises:
        DamagedWeights: their digest is not what was published.
    """
    weights.require(found_digest(weights))
    return WeightBuffer(weights.data_B, weights.layout)


def copied_digest(weights: WeightBuffer, into_B: NDArray[np.uint8]) -> str:
    """The digest of weights that are copied meanwhile, by as many cores as make it faster."""
    return copy_weights(weights, into_B, num_threads=num_threads_of(weights))


def stale_term(published: Published, *, newest: int) -> StaleTerm:
    return StaleTerm(
        f"term {published.term} published version {published.policy_version}, but term "
        f"{newest} has taken over: this learner must stop"
    )


def weights_not_found(published: Published, held: Iterable[Published]) -> WeightsNotFound:
    there = ", ".join(f"{p.term}/{p.policy_version}" for p in sorted(held))
    return WeightsNotFound(
        f"weights {published.term}/{published.policy_version} (term/version) are not "
        f"published; there are: {there or 'none'}"
    )
