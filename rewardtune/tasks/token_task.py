"""Where a task class begins: what most tasks answer alike."""

from __future__ import annotations

from collections.abc import Sequence

from rewardtune.records import Group, Score, TokenTargets
from rewardtune.tasks.vocabulary import Vocabulary


class TokenTask:
    """Base of a task; a subclass adds ``name``, ``score_rules`` and what only it can know.

    Together they are ``rewardtune.tasks.task.Task``, which a class may also implement without this.
    """

    name: str
    score_rules: tuple[str, ...]

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that its policy draws, and what they mean."""
        return self._vocabulary

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
