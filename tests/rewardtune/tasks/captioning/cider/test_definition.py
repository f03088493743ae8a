"""The definition against official values, and the values that follow from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardtune.tasks.captioning.cider.definition import (
    cider,
    cider_d,
    document_frequency,
    inverse_frequency,
)

SHARED = Path(__file__).parents[5].parent / "shared" / "data" / "captions"

# Scored by pycocoevalcap 1.2 with the document frequencies of these five images.
REFERENCES = [
    ["a cat sits on the mat", "the cat is on a mat", "a cat"],
    ["two dogs run", "two brown dogs run in the park", "dogs running in a park"],
    ["a red bus on a street"],
    ["a man riding a wave on a surfboard", "a surfer rides a wave", ""],
    ["a man riding a horse", "a man on a horse"],
]
CANDIDATES = [
    "a cat sits on the the the mat",
    "dogs",
    "",
    "a man riding a wave on a surfboard",
    "a a a a man with a",
]
OFFICIAL = [2.8595380946828994, 0.9897540173934278, 0.0, 3.7773484001917605, 0.7022986409055411]

REFERENCE_WORDS = [[text.split() for text in image] for image in REFERENCES]
IDF = inverse_frequency(document_frequency(REFERENCE_WORDS), num_images=len(REFERENCES))


def test_captions_score_as_officially() -> None:
    for candidate, references, official in zip(CANDIDATES, REFERENCE_WORDS, OFFICIAL, strict=True):
        assert cider_d(candidate.split(), references, idf=IDF) == pytest.approx(official, abs=1e-12)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not beside this repository")
@pytest.mark.parametrize(("name", "of"), [("ciderd", cider_d), ("cider_plain", cider)])
def test_every_edge_case_scores_as_officially(name: str, of: object) -> None:
    cases = json.loads((SHARED / "edge_cases.json").read_text())["cases"]
    references = [[text.split() for text in case["refs"]] for case in cases]
    idf = inverse_frequency(document_frequency(references), num_images=len(cases))
    assert callable(of)
    for case, words in zip(cases, references, strict=True):
        score = of(case["hyp"].split(), words, idf=idf)
        assert score == pytest.approx(case[name], abs=1e-12), case["kind"]


@pytest.mark.parametrize(
    ("num_words", "score"), [(1, 2.5), (2, 5.0), (3, 7.5), (4, 10.0), (9, 10.0)]
)
def test_the_only_reference_itself_scores_a_quarter_per_length(
    num_words: int, score: float
) -> None:
    words = [f"word{i}" for i in range(num_words)]
    idf = inverse_frequency(document_frequency([[words]]), num_images=100)
    assert cider_d(words, [words], idf=idf) == pytest.approx(score)


def test_an_image_counts_once_however_many_of_its_references_have_an_ngram() -> None:
    frequency = document_frequency([[["a", "a"], ["a"]], [["b"]]])
    assert frequency[("a",)] == 1
    assert frequency[("a", "a")] == 1
    assert frequency[("c",)] == 0


def test_a_caption_of_no_word_is_as_long_as_one_of_one_word() -> None:
    # The length penalty counts bigrams: one word is one bigram short of two, not one word.
    reference = ["x", "y"]
    idf = inverse_frequency(document_frequency([[["x"], ["x", "y"]]]), num_images=10)
    assert cider_d(["x"], [["x"]], idf=idf) == pytest.approx(2.5)
    unigram = cider_d(["x"], [reference], idf=idf)
    assert unigram == pytest.approx(2.5 / 2**0.5 * 2.718281828459045 ** (-1 / 72))


def test_repeating_a_word_helps_only_without_clipping() -> None:
    references = [["red", "bus"]]
    idf = inverse_frequency(document_frequency([references[0:1]]), num_images=10)
    once, thrice = ["red"], ["red", "red", "red"]
    assert cider_d(thrice, references, idf=idf) < cider_d(once, references, idf=idf)
    assert cider(thrice, references, idf=idf) == pytest.approx(cider(once, references, idf=idf))


def test_no_references_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        cider_d(["a"], [], idf=IDF)
