"""ROUGE-L as coco-caption computes it.

Source: Lin 2004; tylin/coco-caption, ``rouge.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

BETA = 1.2
"""Recall weighs this much more than precision."""


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F-measure of the longest common subsequence, in [0, 1].

    Best precision and best recall may come from different references. An empty sentence counts as
    one empty word, as in the published code: two empty ones agree, and score 1.

    Args:
        candidate: tokens. Unlike for CIDEr and BLEU, a token with a no-break space stays one.
        references: of the same image, at least one.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("ROUGE-L needs at least one reference, got none")
    tokens = list(candidate) or [""]
    precision = recall = 0.0
    for reference in references:
        other = list(reference) or [""]
        common = _common_length(tokens, other)
        precision = max(precision, common / len(tokens))
        recall = max(recall, common / len(other))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    # lengths[j]: of what was read of ``one`` and the first j of ``other``.
    lengths = [0] * (len(other) + 1)
    for token in one:
        before = 0
        for j, candidate in enumerate(other, start=1):
            above = lengths[j]
            lengths[j] = before + 1 if token == candidate else max(above, lengths[j - 1])
            before = above
    return lengths[-1]
