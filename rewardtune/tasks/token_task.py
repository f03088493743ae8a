"""Where a task class begins: what the pipeline asks about tokens, answered once for all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardtune.records import Group, Score, TokenTargets


@dataclass(frozen=True, slots=True)
class TokenLayout:
    """The sequences that a task's policy draws."""

    vocab_size: int
    sequence_length: int
    stop_token: int | None = None
    """A sequence that draws it is finished; None: every position is drawn."""
    probe_tokens: tuple[int, ...] = ()
    """Tokens whose log-probs the sampler returns at every position."""
    meaning: Mapping[str, Any] = field(default_factory=dict)
    """What else tells this vocabulary from others, as JSON: class names, levels of a coordinate."""


class TokenTask:
    """Base of a task; a subclass adds ``name``, ``score_rules`` and what only it can know.

    Together they are ``rewardtune.tasks.task.Task``, which a class may also implement without this.
    """

    name: str
    score_rules: tuple[str, ...]

    def __init__(self, layout: TokenLayout) -> None:
        self._layout = layout

    @property
    def vocab_size(self) -> int:
        return self._layout.vocab_size

    @property
    def sequence_length(self) -> int:
        return self._layout.sequence_length

    @property
    def stop_token(self) -> int | None:
        return self._layout.stop_token

    @property
    def probe_tokens(self) -> tuple[int, ...]:
        return self._layout.probe_tokens

    def describe_vocabulary(self) -> dict[str, Any]:
        """What each token means, as JSON: a policy stores it to refuse another vocabulary."""
        return {
            "task": self.name,
            "vocab_size": self.vocab_size,
            "sequence_length": self.sequence_length,
            **self._layout.meaning,
        }

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        """None: there is nothing to train beside the reward."""
        return None

    def _check_indices(self, indices: Sequence[int]) -> None:
        """
        Raises:
            ValueError: there are none to evaluate.
        """
        if not indices:
            raise ValueError("evaluate needs at least one example, got no indices")
