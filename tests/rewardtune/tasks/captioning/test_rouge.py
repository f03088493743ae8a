"""ROUGE-L against values of pycocoevalcap 1.2, and against all common subsequences."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.tasks.captioning.rouge import BETA, rouge_l
from tests.rewardtune.tasks.captioning.cider.test_definition import CANDIDATES, REFERENCE_WORDS

OFFICIAL = [0.8798076923076923, 0.45864661654135336, 0.0, 1.0, 0.5154929577464789]
WORDS = st.lists(st.sampled_from("abc"), max_size=6)


def test_captions_score_as_officially() -> None:
    scores = [
        rouge_l(candidate.split(), references)
        for candidate, references in zip(CANDIDATES, REFERENCE_WORDS, strict=True)
    ]
    assert scores == pytest.approx(OFFICIAL, abs=1e-15)


@given(one=WORDS.filter(len), other=WORDS.filter(len))
def test_the_common_subsequence_is_the_longest_of_all(one: list[str], other: list[str]) -> None:
    common = max(
        length
        for length in range(len(one) + 1)
        if set(combinations(one, length)) & set(combinations(other, length))
    )
    precision, recall = common / len(one), common / len(other)
    expected = (
        (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if common else 0.0
    )
    assert rouge_l(one, [other]) == pytest.approx(expected)


def test_two_empty_sentences_agree_as_they_do_officially() -> None:
    assert rouge_l([], [[]]) == 1.0
    assert rouge_l([], [["a"]]) == 0.0


def test_no_references_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        rouge_l(["a"], [])
