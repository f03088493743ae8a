"""The fast reward against official values and the definition, and what a reward must keep.

Axes: I images, S candidates of an image, C candidates of all images, T tokens.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rewardtune.tasks.captioning.cider.document_frequencies as frequencies_module
from rewardtune.tasks.captioning.cider.definition import (
    cider_d,
    document_frequency,
    inverse_frequency,
)
from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    DocumentFrequencies,
)
from rewardtune.tasks.captioning.reward import CaptionReward
from tests.rewardtune.tasks.captioning.cider.test_definition import (
    CANDIDATES,
    OFFICIAL,
    REFERENCE_WORDS,
    REFERENCES,
)

SHARED = Path(__file__).parents[4].parent / "shared" / "data" / "captions"
needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the shared data are not beside this repository"
)

# Few words, so that n-grams repeat in captions and between them; "x" to "z" only candidates have.
WORDS = st.lists(st.sampled_from("aabcde"), max_size=9)
CANDIDATE = st.lists(st.sampled_from("aabcdexyz"), max_size=12)
IMAGES = st.lists(st.lists(WORDS, min_size=1, max_size=4), min_size=1, max_size=5)


def slow_scores(
    candidates: Sequence[Sequence[Sequence[object]]],
    references: Sequence[Sequence[Sequence[object]]],
    *,
    counted: Sequence[Sequence[Sequence[object]]],
) -> list[float]:
    idf = inverse_frequency(document_frequency(counted), num_images=len(counted))
    return [
        cider_d(candidate, image, idf=idf)
        for group, image in zip(candidates, references, strict=True)
        for candidate in group
    ]


def test_captions_score_as_officially() -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS))
    scores = reward.score_batch([[text.split()] for text in CANDIDATES], REFERENCE_WORDS)
    np.testing.assert_allclose(scores, OFFICIAL, rtol=0, atol=1e-12)


@needs_shared
def test_every_edge_case_scores_as_officially() -> None:
    cases = json.loads((SHARED / "edge_cases.json").read_text())["cases"]
    references = [[text.split() for text in case["refs"]] for case in cases]
    reward = CaptionReward(DocumentFrequencies.of_words(references))
    scores = reward.score_batch([[case["hyp"].split()] for case in cases], references)
    np.testing.assert_allclose(scores, [case["ciderd"] for case in cases], rtol=0, atol=1e-12)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("statistics", ["corpus", "train"])
def test_ten_systems_score_as_officially(statistics: str) -> None:
    references = {
        image["image_id"]: [text.split() for text in image["ptb"]]
        for image in json.loads((SHARED / "refs.json").read_text())
    }
    candidates = json.loads((SHARED / "candidates.json").read_text())
    expected = json.loads((SHARED / f"expected_ciderd_{statistics}_df.json").read_text())
    train = DocumentFrequencies.of_words(list(references.values()))
    for system, official in expected.items():
        if system == "human_leave_last_out":
            images = [image[:-1] for image in references.values()]
            words = [[image[-1]] for image in references.values()]
        else:
            images = [references[caption["image_id"]] for caption in candidates[system]]
            words = [[caption["ptb"].split()] for caption in candidates[system]]
        frequencies = train if statistics == "train" else DocumentFrequencies.of_words(images)
        scores = CaptionReward(frequencies).score_batch(words, images)
        np.testing.assert_allclose(scores, official["per_caption"], rtol=0, atol=1e-12)


@needs_shared
@pytest.mark.slow
def test_token_ids_with_an_end_score_as_in_self_critical_training() -> None:
    counted = np.load(SHARED / "selfcritical" / "df_train_idxs.npz")
    stored = np.load(SHARED / "selfcritical" / "tokens_and_expected.npz")
    vocabulary = json.loads((SHARED / "selfcritical" / "vocab.json").read_text())
    frequencies = DocumentFrequencies.of_counts(
        counted["ngrams"],
        counted["count"],
        num_images=int(counted["ref_len"]),
        vocabulary=[END_OF_SENTENCE, *vocabulary],
        counts_end=True,
    )
    references = [
        [tuple(int(word) for word in row if word) for row in stored["refs"][start:end]]
        for start, end in zip(stored["ref_start"], stored["ref_end"], strict=True)
    ]
    reward = CaptionReward(frequencies, end_of_sentence=True, max_reference_words=16)
    scores = reward.score_batch(stored["hyps"], references).reshape(-1, 8)
    np.testing.assert_allclose(scores, stored["expected_ciderd"], rtol=0, atol=1e-12)
    # Self-critical: less the score of the greedy sample, the first.
    advantage = scores[:64, 1:] - scores[:64, :1]
    np.testing.assert_allclose(advantage, stored["expected_sc_reward_first64"], rtol=0, atol=1e-12)


@settings(max_examples=150)
@given(images=IMAGES, data=st.data(), is_wide=st.booleans())
@pytest.mark.slow
def test_the_fast_form_equals_the_definition(
    images: list[list[list[str]]], data: st.DataObject, is_wide: bool
) -> None:
    candidates = [data.draw(st.lists(CANDIDATE, max_size=3)) for _ in images]
    # References that the frequencies do not know all of.
    counted = [[[word for word in words if word != "e"] for words in image] for image in images]
    with pytest.MonkeyPatch.context() as patch:
        if is_wide:
            patch.setattr(frequencies_module, "NARROW_LIMIT", 0)
        frequencies = DocumentFrequencies.of_words(counted)
    assert frequencies.facts.is_wide == is_wide
    scores = CaptionReward(frequencies).score_batch(candidates, images)
    np.testing.assert_allclose(
        scores, slow_scores(candidates, images, counted=counted), rtol=0, atol=1e-12
    )


@given(image=st.lists(WORDS, min_size=1, max_size=4), candidate=CANDIDATE, data=st.data())
def test_the_fast_form_equals_the_definition_where_more_images_have_an_ngram_than_there_are(
    image: list[list[str]], candidate: list[str], data: st.DataObject
) -> None:
    letters = "abcdexyz"
    number = {letter: i + 1 for i, letter in enumerate(letters)}
    count = {
        (letter,): data.draw(st.integers(1, 9))
        for letter in data.draw(st.sets(st.sampled_from(letters)))
    }
    frequencies = DocumentFrequencies.of_counts(
        np.array([[number[g[0]], -1, -1, -1] for g in count], dtype=np.int64).reshape(-1, 4),
        np.array(list(count.values()), dtype=np.int64),
        num_images=3,
        counts_end=False,
    )
    references = [[number[word] for word in words] for words in image]
    tokens = np.array([[number[word] for word in candidate]], dtype=np.int64).reshape(1, -1)
    score = CaptionReward(frequencies).score(tokens, references)
    slow = cider_d(candidate, image, idf=inverse_frequency(Counter(count), num_images=3))
    np.testing.assert_allclose(score, [slow], rtol=0, atol=1e-12)


@given(images=IMAGES, candidate=CANDIDATE, order=st.randoms(use_true_random=False))
def test_scores_are_bounded_and_blind_to_the_order_of_references(
    images: list[list[list[str]]], candidate: list[str], order: random.Random
) -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(images))
    score = reward.score([candidate], images[0])
    assert 0 <= score[0] <= 10 + 1e-12
    shuffled = list(images[0])
    order.shuffle(shuffled)
    np.testing.assert_allclose(reward.score([candidate], shuffled), score, rtol=0, atol=1e-12)


@given(images=IMAGES, candidates=st.lists(CANDIDATE, min_size=1, max_size=4))
def test_a_score_depends_on_nothing_but_candidate_and_references(
    images: list[list[list[str]]], candidates: list[list[str]]
) -> None:
    frequencies = DocumentFrequencies.of_words(images)
    reward = CaptionReward(frequencies)
    together = reward.score(candidates, images[0])
    alone = [CaptionReward(frequencies).score([c], images[0])[0] for c in candidates]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(reward.score(candidates, images[0]), together)


@given(images=IMAGES, candidate=CANDIDATE)
def test_doubling_a_caption_never_raises_its_score_for_references_it_equals(
    images: list[list[list[str]]], candidate: list[str]
) -> None:
    # Counts beyond the references' are clipped in the numerator but not in the norm.
    reward = CaptionReward(DocumentFrequencies.of_words([*images, [candidate]]))
    once, twice = reward.score([candidate, candidate * 2], [candidate])
    assert twice <= once + 1e-12


def test_token_ids_score_as_the_words_that_they_stand_for() -> None:
    frequencies = DocumentFrequencies.of_words(REFERENCE_WORDS, counts_end=True)
    id_of = frequencies.id_of_word
    tokens_ST = np.zeros((2, 6), dtype=np.int16)
    words = ["a", "man", "on", "a", "horse"]
    tokens_ST[0, :5] = [id_of[word] for word in words]
    tokens_ST[1, :2] = [id_of[word] for word in words[:2]]
    for ends in (False, True):
        reward = CaptionReward(frequencies, end_of_sentence=ends)
        end = [END_OF_SENTENCE] if ends else []
        by_words = reward.score([[*words, *end], [*words[:2], *end]], REFERENCES[4])
        np.testing.assert_array_equal(reward.score(tokens_ST, REFERENCES[4]), by_words)


def test_scoring_the_end_rewards_ending_where_references_end() -> None:
    references = [[["a", "dog", "with", "a", "ball"]], [["a", "cat", "with", "a", "hat"]]]
    frequencies = DocumentFrequencies.of_words(references, counts_end=True)
    whole = ["a", "dog", "with", "a", "ball", END_OF_SENTENCE]
    broken = ["a", "dog", "with", "a", END_OF_SENTENCE]
    without, scored = (
        CaptionReward(frequencies, end_of_sentence=ends).score([broken, whole], references[0])
        for ends in (False, True)
    )
    assert scored[1] == pytest.approx(10)
    # "a <end>" is in no reference: breaking off there costs more than without the end.
    assert scored[0] < without[0]


def test_a_reference_that_was_cut_has_no_end() -> None:
    references = [[["a", "b", "c"]], [["d"]]]
    frequencies = DocumentFrequencies.of_words(references, counts_end=True)
    reward = CaptionReward(frequencies, end_of_sentence=True, max_reference_words=3)
    assert reward.score([["a", "b", "c"]], references[0]) == pytest.approx([7.5])
    assert reward.score([["d", END_OF_SENTENCE]], references[1]) == pytest.approx([5.0])


def test_references_given_as_text_are_split_as_the_frequencies_were() -> None:
    words = [[["a", "dog", "'s", "ball"]], [["cats"]]]
    ptb = DocumentFrequencies.of_words(words, splitting="ptb")
    blanks = DocumentFrequencies.of_words(words, splitting="blanks")
    reference = ["A dog's ball."]
    assert CaptionReward(ptb).score([words[0][0]], reference) == pytest.approx([10])
    assert CaptionReward(blanks).score([words[0][0]], reference) == pytest.approx([0])


def test_cooked_references_stay_below_their_limit_and_change_no_score() -> None:
    rng = np.random.default_rng(0)
    images = [[[f"w{w}" for w in rng.integers(50, size=8)] for _ in range(5)] for _ in range(60)]
    frequencies = DocumentFrequencies.of_words(images)
    candidates = [[image[0][:5], image[1]] for image in images]
    expected = CaptionReward(frequencies).score_batch(candidates, images)
    small = CaptionReward(frequencies, cache_bytes=100_000)
    for _ in range(2):
        np.testing.assert_array_equal(small.score_batch(candidates, images), expected)
        assert 0 < small.num_cached_bytes <= 100_000
    # One that is larger than the limit is scored all the same.
    tiny = CaptionReward(frequencies, cache_bytes=0)
    np.testing.assert_array_equal(tiny.score_batch(candidates, images), expected)


def test_ngrams_never_seen_leave_nothing_behind() -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS))
    reward.score([["a"]], REFERENCES[0])
    before = reward.num_cached_bytes, len(reward._id_of)
    for i in range(200):
        reward.score([[f"new{i}", "words", f"{i}"]], REFERENCES[0])
    assert (reward.num_cached_bytes, len(reward._id_of)) == before


def test_an_image_can_have_no_candidates_and_a_batch_no_images() -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS))
    assert reward.score([], REFERENCES[0]).shape == (0,)
    assert reward.score_batch([], []).shape == (0,)
    assert reward.score(np.zeros((2, 0), dtype=np.int32), REFERENCES[0]).tolist() == [0, 0]


def test_captions_of_many_words_score_as_by_definition() -> None:
    long = ["a", "b"] * 200 + ["a", "c"] * 100
    references = [[long[:300], ["a", "b"]], [["c"]]]
    reward = CaptionReward(DocumentFrequencies.of_words(references))
    slow = slow_scores([[long]], references[:1], counted=references)
    np.testing.assert_allclose(reward.score([long], references[0]), slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("candidates", "references", "problem"),
    [
        (np.array([[-1]]), ["a cat"], "token id -1"),
        (np.array([[99]]), ["a cat"], "token id 99"),
        (np.array([[0.5]]), ["a cat"], "must be integers"),
        (np.array([1, 2]), ["a cat"], r"\[S, T\]"),
        ([["a"]], [], "without reference captions"),
        ([["a", 3]], ["a cat"], "list of words"),
        ([[None]], ["a cat"], "list of words"),
        ([["a"]], [["a", END_OF_SENTENCE]], "holds the end"),
        ([["a"]], [(-3, 1)], "token id -3"),
        ([["a"]], [["a"] * 70_000], "65535 words"),
        ([["a"]], [[f"new{i}" for i in range(5000)]], "4096 is the most"),
    ],
)
def test_what_cannot_be_scored_is_an_error(
    candidates: object, references: object, problem: str
) -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS))
    with pytest.raises(ValueError, match=problem):
        reward.score(candidates, references)  # type: ignore[arg-type]


def test_a_batch_needs_references_for_every_group() -> None:
    reward = CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS))
    with pytest.raises(ValueError, match="2 groups of candidates need as many"):
        reward.score_batch([[["a"]], [["a"]]], [REFERENCES[0]])


def test_the_end_cannot_be_scored_where_it_was_not_counted() -> None:
    with pytest.raises(ValueError, match="--end-of-sentence"):
        CaptionReward(DocumentFrequencies.of_words(REFERENCE_WORDS), end_of_sentence=True)
