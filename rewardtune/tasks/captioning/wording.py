"""Signs that a captioner games its reward: figures to watch, never part of a reward.

A CIDEr-tuned captioner that is not paid for ending its sentences stops them early ("a man
riding a wave with a"), and one that is paid by the n-gram repeats them.
"""

from __future__ import annotations

from collections.abc import Sequence

FUNCTION_WORDS = frozenset(
    {
        "a", "an", "the", "and", "or", "but", "with", "without", "of",
        "on", "in", "at", "to", "from", "for", "by", "into", "onto",
        "over", "under", "near", "next", "as", "than", "that", "which", "who",
        "is", "are", "was", "were", "be", "being", "no", "its", "their",
        "his", "her",
    }
)  # fmt: skip
"""English words that no sentence ends with."""

_REPEATED_LENGTH = 3


def ends_in_function_word(words: Sequence[str]) -> bool:
    """Whether the sentence breaks off; an empty one does not."""
    return bool(words) and words[-1] in FUNCTION_WORDS


def repeated_ngrams(words: Sequence[str]) -> float:
    """Share of the trigrams that occurred before in the same caption, in [0, 1)."""
    count = len(words) - _REPEATED_LENGTH + 1
    if count <= 0:
        return 0.0
    distinct = {tuple(words[i : i + _REPEATED_LENGTH]) for i in range(count)}
    return 1.0 - len(distinct) / count
