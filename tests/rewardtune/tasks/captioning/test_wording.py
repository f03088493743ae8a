from __future__ import annotations

import pytest

from rewardtune.tasks.captioning.wording import ends_in_function_word, repeated_ngrams


@pytest.mark.parametrize(
    ("sentence", "breaks_off"),
    [
        ("a man riding a wave with a", True),
        ("a man on", True),
        ("a man on a wave", False),
        ("", False),
    ],
)
def test_sentences_that_break_off_are_told(sentence: str, breaks_off: bool) -> None:
    assert ends_in_function_word(sentence.split()) == breaks_off


@pytest.mark.parametrize(
    ("sentence", "share"),
    [
        ("a dog", 0.0),
        ("a dog and a cat", 0.0),
        ("a dog and a dog and a dog", 1 - 3 / 6),
        ("on on on on", 1 / 2),
    ],
)
def test_repeated_trigrams_are_a_share_of_all(sentence: str, share: float) -> None:
    assert repeated_ngrams(sentence.split()) == pytest.approx(share)
