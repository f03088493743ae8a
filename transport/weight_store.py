"""Where the learner publishes weights and samplers fetch them."""

from __future__ import annotations

from typing import Protocol

from records import PackedWeights, Published
from transport.term import StaleTerm


class WeightsNotFound(LookupError):
    """Nobody published these weights, or they were retired: the caller asked too early or late."""


class WeightStore(Protocol):
    """Published sets of weights by term and policy version.

    Nobody waits here: ``fetch`` of what is not there raises.
    """

    def publish(self, published: Published, weights: PackedWeights) -> None:
        """Make weights available. The store keeps the arrays; the caller must not write to them.

        Raises:
            StaleTerm: a higher term has published already.
        """
        ...

    def fetch(self, published: Published) -> PackedWeights:
        """Raises:
        WeightsNotFound: nothing is published under that name.
        """
        ...

    def retire(self, *, before_version: int) -> None:
        """Forget versions below ``before_version``."""
        ...


class MemoryWeightStore:
    """Weights within one process. One writer; no locks."""

    def __init__(self) -> None:
        self._weights: dict[Published, PackedWeights] = {}
        self._term = -1

    def publish(self, published: Published, weights: PackedWeights) -> None:
        if published.term < self._term:
            raise StaleTerm(
                f"term {published.term} published version {published.policy_version}, but term "
                f"{self._term} has taken over: this learner must stop"
            )
        if published.term > self._term:
            self._weights.clear()
            self._term = published.term
        self._weights[published] = weights

    def fetch(self, published: Published) -> PackedWeights:
        if published not in self._weights:
            held = ", ".join(f"{p.term}/{p.policy_version}" for p in sorted(self._weights))
            raise WeightsNotFound(
                f"weights {published.term}/{published.policy_version} (term/version) are not "
                f"published; there are: {held or 'none'}"
            )
        return self._weights[published]

    def retire(self, *, before_version: int) -> None:
        for published in [p for p in self._weights if p.policy_version < before_version]:
            del self._weights[published]
