"""CIDEr and CIDEr-D as they are defined, one caption at a time.

This is the definition: short and slow. ``kernel.py`` computes CIDEr-D for whole batches,
and tests hold the two together.

Unit: 0 to 10 as long as no n-gram is counted for more images than there are. A candidate that
equals its only reference scores 10 if it has four words or more, 2.5 less for each word that it
lacks; an empty one scores 0. Papers print these numbers times ten.

A word is anything hashable: strings for the official score, token ids for self-critical training.

Source: Vedantam et al. 2015, arXiv:1411.5726; what evaluation servers call CIDEr is the CIDEr-D of
tylin/coco-caption (``cider_scorer.py``), and ``cider`` is the older form of vrama91/cider.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias

Words: TypeAlias = Sequence[Hashable]
NGram: TypeAlias = tuple[Hashable, ...]

LONGEST = 4
"""Words of the longest n-gram; all shorter ones count too."""
SIGMA = 6.0
"""Width of CIDEr-D's length penalty, in words."""
SCALE = 10.0


def ngram_counts(words: Words, length: int) -> Counter[NGram]:
    """How often each run of ``length`` words occurs, in order of first appearance."""
    return Counter(tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def document_frequency(images: Iterable[Sequence[Words]]) -> Counter[NGram]:
    """In the references of how many images each n-gram occurs, at least once.

    Args:
        images: the references of each image.
    """
    frequency: Counter[NGram] = Counter()
    for references in images:
        frequency.update(
            {g for words in references for n in range(LONGEST) for g in ngram_counts(words, n + 1)}
        )
    return frequency


def inverse_frequency(frequency: Counter[NGram], *, num_images: int) -> Callable[[NGram], float]:
    """The weight of one occurrence: log N - log df; an n-gram never seen counts as seen once."""
    return lambda ngram: math.log(num_images) - math.log(max(1, frequency[ngram]))


def cider_d(
    candidate: Words, references: Sequence[Words], *, idf: Callable[[NGram], float]
) -> float:
    """CIDEr-D: clipped weights, and a penalty where lengths differ.

    Args:
        candidate: may be empty.
        references: of the same image, at least one; each may be empty. Their order is of no
            consequence; one that is given twice counts twice.
        idf: see ``inverse_frequency``.

    Raises:
        ValueError: no references.
    """
    _check(references)
    total = 0.0
    for reference in references:
        # The published code counts bigrams: sentences of no and of one word are equally long.
        excess = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
        penalty = math.exp(-(excess**2) / (2 * SIGMA**2))
        for n in range(1, LONGEST + 1):
            total += penalty * _cosine(candidate, reference, n, idf=idf, is_clipped=True)
    return SCALE * total / LONGEST / len(references)


def cider(candidate: Words, references: Sequence[Words], *, idf: Callable[[NGram], float]) -> float:
    """CIDEr without clipping and length penalty. Arguments and errors as for ``cider_d``."""
    _check(references)
    total = sum(
        _cosine(candidate, reference, n, idf=idf, is_clipped=False)
        for reference in references
        for n in range(1, LONGEST + 1)
    )
    return SCALE * total / LONGEST / len(references)


def _cosine(
    candidate: Words,
    reference: Words,
    length: int,
    *,
    idf: Callable[[NGram], float],
    is_clipped: bool,
) -> float:
    weight_c = {g: count * idf(g) for g, count in ngram_counts(candidate, length).items()}
    weight_r = {g: count * idf(g) for g, count in ngram_counts(reference, length).items()}
    product = sum(
        (min(weight, weight_r[g]) if is_clipped else weight) * weight_r[g]
        for g, weight in weight_c.items()
        if g in weight_r
    )
    norms = math.hypot(*weight_c.values()) * math.hypot(*weight_r.values())
    # All weights of one side are zero, and so is the product.
    return product / norms if norms else 0.0


def _check(references: Sequence[Words]) -> None:
    if not references:
        raise ValueError("CIDEr needs at least one reference, got none")
