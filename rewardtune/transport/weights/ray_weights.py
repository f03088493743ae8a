"""Weights between the processes of a Ray cluster: in its object store, one buffer per version.

The learner's process owns the objects, so they die with it; a small actor holds the references
under their names, and who may publish. Readers on one machine share the memory. Ray's store hands
out memory again that was freed: after ``depth + 2`` versions a publication writes to memory that
has been touched, which is ten times faster than the first touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    RayActorError,
    RayTaskError,
)

from rewardtune.records import CanaryLogProbs, PackedWeights, Published, WeightManifest
from rewardtune.records.weights import UncheckedWeights, contiguous, manifest_of
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights.weight_store import (
    DamagedWeights,
    WeightRegistry,
    WeightsNotFound,
    WeightsUnavailable,
    checked,
    weights_not_found,
    with_digest,
)

T = TypeVar("T")

_TIMEOUT_SECONDS = 30.0
"""Of one call; a transfer between machines of 10 GB at 10 Gbit/s takes a third of it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    manifest: WeightManifest
    buffer: Sequence[ray.ObjectRef[Any]]
    """One reference; bare, Ray would send its bytes instead."""


def start_ray_weights(
    name: str, namespace: str, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> RayWeightStore:
    """Start the registry under a name that other processes join; or join it, if it runs.

    It lives for as long as the caller holds what this returns.

    Raises:
        WeightsUnavailable: this process belongs to no cluster, or the actor did not start in time.
    """
    _require_cluster(name, namespace)
    registry = ray.remote(_Registry).options(
        name=name, namespace=namespace, get_if_exists=True, num_cpus=0, max_restarts=-1
    )
    actor = cast("ActorHandle[Any]", registry.remote())
    return _reached(actor, name, namespace, timeout_seconds)


def join_ray_weights(
    name: str, namespace: str, *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> RayWeightStore:
    """The store that ``start_ray_weights`` made, from any process of its cluster.

    Raises:
        WeightsUnavailable: it is not there.
    """
    _require_cluster(name, namespace)
    try:
        actor = ray.get_actor(name, namespace)
    except ValueError:
        raise WeightsUnavailable(
            f"no weight store '{name}' in Ray namespace '{namespace}': start the run's driver first"
        ) from None
    return _reached(actor, name, namespace, timeout_seconds)


class RayWeightStore:
    """Implements ``WeightStore``. Not for several threads at once."""

    def __init__(self, registry: ActorHandle[Any], *, timeout_seconds: float) -> None:
        self._registry = registry
        self._timeout_seconds = timeout_seconds
        self._term = -1
        self._own: dict[Published, _Entry] = {}

    def publish(
        self, published: Published, weights: PackedWeights, *, canary: CanaryLogProbs | None = None
    ) -> None:
        buffer = contiguous(weights)
        try:
            reference, digest = with_digest(buffer, lambda: ray.put(buffer.data_B))
        except (ObjectStoreFullError, OutOfDiskError) as error:
            raise WeightsUnavailable(
                f"Ray's object store has no room for {len(buffer.data_B)} bytes of weights: "
                f"give Ray more object_store_memory"
            ) from error
        entry = _Entry(manifest_of(published, buffer, digest=digest, canary=canary), [reference])
        self._ask(self._registry.publish.remote(entry))
        if published.term > self._term:
            self._own.clear()
        self._own[published], self._term = entry, published.term

    def fetch(self, published: Published) -> PackedWeights:
        return checked(self.fetch_unchecked(published))

    def fetch_unchecked(self, published: Published) -> UncheckedWeights:
        entry: _Entry = self._ask(self._registry.find.remote(published))
        try:
            data_B = self._ask(entry.buffer[0])
        except ObjectLostError:
            # Also OwnerDiedError: the learner is gone, and its next start publishes anew.
            raise weights_not_found(published, ()) from None
        return UncheckedWeights(
            data_B,
            entry.manifest.tensors,
            digest=entry.manifest.digest,
            damaged=lambda found: DamagedWeights(
                f"weights {published.term}/{published.policy_version} (term/version) came with "
                f"digest {found}, but {entry.manifest.digest} was published: suspect this "
                f"machine's memory"
            ),
        )

    def manifest(self, published: Published) -> WeightManifest:
        entry: _Entry = self._ask(self._registry.find.remote(published))
        return entry.manifest

    def retire(self, *, before_version: int) -> None:
        if self._term < 0:
            return
        self._own = {p: e for p, e in self._own.items() if p.policy_version >= before_version}
        self._ask(self._registry.retire.remote(self._term, before_version))

    def pin(self, published: Published) -> None:
        self._ask(self._registry.pin.remote(published))

    def unpin(self, published: Published) -> None:
        self._ask(self._registry.unpin.remote(published))

    def reassert(self) -> None:
        """A registry that was restarted knows nothing; the objects are still there.

        Raises:
            StaleTerm: a higher term has published.
        """
        if self._own:
            lost: list[Published] = self._ask(self._registry.missing.remote(list(self._own)))
            for published in lost:
                self._ask(self._registry.publish.remote(self._own[published]))

    def _ask(self, reference: ray.ObjectRef[T]) -> T:
        try:
            return ray.get(reference, timeout=self._timeout_seconds)
        except GetTimeoutError:
            raise WeightsUnavailable(
                f"Ray's weight store did not answer within {self._timeout_seconds:g} s"
            ) from None
        except RayActorError as error:
            raise WeightsUnavailable(
                f"the registry of Ray's weight store is away ({type(error).__name__}); if it can "
                f"be restarted, Ray does so"
            ) from error
        except RayTaskError as error:
            if isinstance(error.cause, StaleTerm | WeightsNotFound):
                raise error.cause from None
            raise


class _Registry:
    """The actor: a WeightRegistry of references."""

    def __init__(self) -> None:
        self._registry = WeightRegistry[_Entry]()

    def ping(self) -> None: ...

    def publish(self, entry: _Entry) -> None:
        self._registry.publish(entry.manifest.published, entry)

    def find(self, published: Published) -> _Entry:
        return self._registry.find(published)

    def missing(self, wanted: Sequence[Published]) -> list[Published]:
        return self._registry.missing(wanted)

    def retire(self, term: int, before_version: int) -> None:
        self._registry.retire(term=term, before_version=before_version)

    def pin(self, published: Published) -> None:
        self._registry.pin(published)

    def unpin(self, published: Published) -> None:
        self._registry.unpin(published)


def _require_cluster(name: str, namespace: str) -> None:
    if not ray.is_initialized():
        raise WeightsUnavailable(
            f"weight store '{name}' is in Ray namespace '{namespace}', but this process belongs to "
            f"no Ray cluster: call ray.init first"
        )


def _reached(
    actor: ActorHandle[Any], name: str, namespace: str, timeout_seconds: float
) -> RayWeightStore:
    try:
        ray.get(actor.ping.remote(), timeout=timeout_seconds)
    except (GetTimeoutError, RayActorError) as error:
        raise WeightsUnavailable(
            f"weight store '{name}' in Ray namespace '{namespace}' did not answer within "
            f"{timeout_seconds:g} s"
        ) from error
    return RayWeightStore(actor, timeout_seconds=timeout_seconds)
