"""What became of every group: admitted = trained + invalid + skipped, by distinct ordinal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Ledger:
    """The learner's account of the ordinals it has consumed, in order and without a gap."""

    batch_size: int
    num_batches: int = 0
    """Batches consumed; also the policy version."""
    invalid: list[int] = field(default_factory=list)
    """Ordinals whose scoring failed for good."""
    skipped: list[int] = field(default_factory=list)
    """Ordinals of batches that moved no weight though they were valid: of older runs alone."""

    @property
    def next_ordinals(self) -> range:
        """The batch that must come next."""
        start = self.num_batches * self.batch_size
        return range(start, start + self.batch_size)

    @property
    def num_admitted(self) -> int:
        return self.num_batches * self.batch_size

    @property
    def num_trained(self) -> int:
        return self.num_admitted - len(self.invalid) - len(self.skipped)

    def consume(self, ordinals: Iterable[int], *, invalid: Iterable[int], is_skipped: bool) -> None:
        """Close one batch.

        Raises:
            ValueError: not exactly the ordinals that are next, each once and in order.
        """
        given, expected = list(ordinals), list(self.next_ordinals)
        if given != expected:
            raise ValueError(
                f"batch {self.num_batches} is ordinals {expected[0]}..{expected[-1]}, but "
                f"{given[:3]}...{given[-1:]} ({len(given)}) were handed in"
            )
        lost = set(invalid)
        self.invalid += [ordinal for ordinal in given if ordinal in lost]
        if is_skipped:
            self.skipped += [ordinal for ordinal in given if ordinal not in lost]
        self.num_batches += 1

    def to_state(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_batches": self.num_batches,
            "invalid": self.invalid,
            "skipped": self.skipped,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Ledger:
        return cls(**state)
