"""BLEU against values of pycocoevalcap 1.2."""

from __future__ import annotations

import numpy as np
import pytest

from rewardtune.tasks.captioning.bleu import bleu_counts, corpus_bleu
from tests.rewardtune.tasks.captioning.cider.test_definition import CANDIDATES, REFERENCE_WORDS

OFFICIAL = [
    [0.7499999999062501, 0.7319250546133743, 0.6446159946012822, 0.5721248423640949],
    [0.1353352829659427, 0.00013533528303361024, 1.3533528305616618e-05, 4.2796774227674215e-06],
    [0.0, 0.0, 0.0, 0.0],
    [0.9999999997500004, 0.9999999997410718, 0.9999999997301591, 0.9999999997163694],
    [0.4285714285102042, 0.2672612418710627, 2.426427502790482e-06, 7.730551755471572e-09],
]
OFFICIAL_CORPUS = [0.6348612936150554, 0.5910236999000913, 0.538939881259117, 0.5073435452995522]

COUNTS = [
    bleu_counts(candidate.split(), references)
    for candidate, references in zip(CANDIDATES, REFERENCE_WORDS, strict=True)
]


def test_captions_score_as_officially() -> None:
    scores = [counts.scores() for counts in COUNTS]
    np.testing.assert_allclose(scores, OFFICIAL, rtol=1e-14, atol=1e-16)


def test_a_corpus_scores_as_officially() -> None:
    np.testing.assert_allclose(corpus_bleu(COUNTS), OFFICIAL_CORPUS, rtol=1e-14)


def test_of_references_equally_close_in_length_the_shorter_counts() -> None:
    assert bleu_counts(["a"] * 3, [["a"] * 4, ["a"] * 2]).reference_length == 2


def test_an_ngram_counts_as_often_as_in_the_reference_that_has_it_most() -> None:
    counts = bleu_counts(["a", "a", "a"], [["a"], ["a", "b", "a"]])
    assert counts.matched_4 == (2, 0, 0, 0)
    assert counts.ngrams_4 == (3, 2, 1, 0)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        bleu_counts(["a"], [])
    with pytest.raises(ValueError, match="at least one caption"):
        corpus_bleu([])
