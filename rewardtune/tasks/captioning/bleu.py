"""BLEU-1 to BLEU-4 as coco-caption computes them.

Counted over the corpus, with the closest reference length (the shorter on ties), and with the two
small numbers that keep its divisions defined: they show in the last digits, and as values just
above 0 where no n-gram matches.

Axes: 4 n-gram lengths.
Source: Papineni et al. 2002; tylin/coco-caption, ``bleu_scorer.py``, option "closest".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.captioning.cider.definition import LONGEST, Words, ngram_counts

_MATCH_EPSILON, _COUNT_EPSILON = 1e-15, 1e-9


@dataclass(frozen=True, slots=True)
class BleuCounts:
    """What BLEU is made of: sums over captions are the corpus' counts."""

    length: int
    """Words of the candidate."""
    reference_length: int
    """Words of the reference closest to it in length."""
    matched_4: tuple[int, ...]
    """N-grams of the candidate found in a reference, each at most as often as in that one."""
    ngrams_4: tuple[int, ...]
    """N-grams of the candidate."""

    def scores(self) -> NDArray[np.float64]:
        """BLEU-1 to BLEU-4 of these counts [4]."""
        ratio = (self.length + _MATCH_EPSILON) / (self.reference_length + _COUNT_EPSILON)
        brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        precision_4 = (np.array(self.matched_4) + _MATCH_EPSILON) / (
            np.array(self.ngrams_4) + _COUNT_EPSILON
        )
        bleu_4: NDArray[np.float64] = np.cumprod(precision_4) ** (1.0 / np.arange(1, LONGEST + 1))
        return bleu_4 * brevity


def bleu_counts(candidate: Words, references: Sequence[Words]) -> BleuCounts:
    """Count one caption against its references.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("BLEU needs at least one reference, got none")
    matched = []
    for n in range(1, LONGEST + 1):
        in_references = [ngram_counts(reference, n) for reference in references]
        matched.append(
            sum(
                min(count, max(counts[ngram] for counts in in_references))
                for ngram, count in ngram_counts(candidate, n).items()
            )
        )
    lengths = (len(reference) for reference in references)
    return BleuCounts(
        length=len(candidate),
        reference_length=min(lengths, key=lambda length: (abs(length - len(candidate)), length)),
        matched_4=tuple(matched),
        ngrams_4=tuple(max(0, len(candidate) - n) for n in range(LONGEST)),
    )


def corpus_bleu(counts: Sequence[BleuCounts]) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of a corpus [4]: one score of all counts, not a mean of scores.

    Raises:
        ValueError: no captions.
    """
    if not counts:
        raise ValueError("BLEU needs at least one caption, got none")
    return BleuCounts(
        length=sum(c.length for c in counts),
        reference_length=sum(c.reference_length for c in counts),
        matched_4=tuple(sum(c.matched_4[n] for c in counts) for n in range(LONGEST)),
        ngrams_4=tuple(sum(c.ngrams_4[n] for c in counts) for n in range(LONGEST)),
    ).scores()
