"""Document frequencies against plain counting, and their file."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rewardtune.tasks.captioning.cider.document_frequencies as frequencies_module
from rewardtune.datasets.coco.broken import ConversionError
from rewardtune.tasks.captioning.caption_sources import captions_of
from rewardtune.tasks.captioning.cider.definition import document_frequency
from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    MAX_FOREIGN,
    UNKNOWN,
    DocumentFrequencies,
    FrequenciesError,
    needs_wide,
)
from rewardtune.tasks.captioning.cider.frequency_builder import (
    CountingOptions,
    build_document_frequencies,
)
from rewardtune.tasks.captioning.cider.ngram_table import NARROW_LIMIT

CAPTIONS = [
    (7, "A dog runs."),
    (7, "The dog isn't running."),
    (-3, "A man's dog"),
    (9, ""),
    (7, "a dog, a dog"),
    (5, "A man runs"),
]
BLANKS = CountingOptions(splitting="blanks")
IMAGES = st.lists(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=7), min_size=1, max_size=3),
    min_size=1,
    max_size=6,
)


def as_counter(frequencies: DocumentFrequencies) -> Counter[tuple[object, ...]]:
    """What the table holds for every n-gram of a few letters, by asking for each."""
    words = [word for word in frequencies.vocabulary if word != END_OF_SENTENCE]
    ngrams: list[tuple[str, ...]] = [()]
    found: Counter[tuple[object, ...]] = Counter()
    for _ in range(4):
        ngrams = [(*ngram, word) for ngram in ngrams for word in words]
        for ngram in ngrams:
            count = frequencies.of_ngram([frequencies.id_of_word[word] for word in ngram])
            if count:
                found[ngram] = count
    return found


@settings(max_examples=40)
@given(images=IMAGES, is_wide=st.booleans())
@pytest.mark.slow
def test_each_ngram_has_as_many_images_as_by_plain_counting(
    images: list[list[list[str]]], is_wide: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if is_wide:
            patch.setattr(frequencies_module, "NARROW_LIMIT", 0)
        frequencies = DocumentFrequencies.of_words(images)
    expected = document_frequency(images)
    assert as_counter(frequencies) == expected
    assert frequencies.num_ngrams == len(expected)
    assert frequencies.num_images == len(images)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=IMAGES, max_rows=st.sampled_from([5, 11, 40, 10_000]), seed=st.integers(0, 99))
def test_a_corpus_on_disk_gives_the_same_file_however_it_is_cut_and_ordered(
    images: list[list[list[str]]], max_rows: int, seed: int, tmp_path: Path
) -> None:
    captions = [(i, " ".join(words)) for i, image in enumerate(images) for words in image]
    random.Random(seed).shuffle(captions)
    built = build_document_frequencies(
        captions, tmp_path / "df.arrow", options=BLANKS, max_rows=max_rows
    )
    in_memory = DocumentFrequencies.of_words(images, splitting="blanks")
    assert built.digest == in_memory.digest
    np.testing.assert_array_equal(built.cell, in_memory.cell)
    assert [path.name for path in tmp_path.iterdir()] == ["df.arrow"]


def test_a_file_says_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "df.arrow"
    built = build_document_frequencies(CAPTIONS, path)
    opened = DocumentFrequencies.open(path)
    assert opened.facts == built.facts
    assert opened.digest == built.digest
    assert not opened.cell.flags.writeable
    assert opened.num_images == 4
    assert opened.vocabulary == (
        END_OF_SENTENCE, "'s", "a", "dog", "is", "man", "n't", "running", "runs", "the",
    )  # fmt: skip
    ids = opened.id_of_word
    assert opened.of_ngram([ids["dog"]]) == 2
    assert opened.of_ngram([ids["a"], ids["dog"]]) == 1
    assert opened.of_ngram([ids["man"], ids["'s"], ids["dog"]]) == 1
    assert opened.of_ngram([ids["dog"], ids["man"]]) == 0
    assert opened.of_ngram([60_000]) == opened.of_ngram([70_000]) == 0


def test_rewriting_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    build_document_frequencies(CAPTIONS, first)
    DocumentFrequencies.open(first).write(second)
    assert first.read_bytes() == second.read_bytes()


def test_the_end_is_a_word_where_it_is_counted(tmp_path: Path) -> None:
    options = CountingOptions(splitting="blanks", end_of_sentence=True)
    captions = [(1, "a dog"), (1, "a cat"), (2, "a dog runs"), (3, "")]
    built = build_document_frequencies(captions, tmp_path / "df", options=options)
    words = [[text.split() for i, text in captions if i == image] for image in (1, 2, 3)]
    in_memory = DocumentFrequencies.of_words(words, splitting="blanks", counts_end=True)
    assert built.digest == in_memory.digest
    assert built.facts.counts_end
    dog = built.id_of_word["dog"]
    assert built.of_ngram([0]) == 3
    assert built.of_ngram([dog, 0]) == 1
    assert built.of_ngram([dog]) == 2


def test_rare_words_become_one(tmp_path: Path) -> None:
    captions = [(1, "a dog runs"), (2, "a dog sits"), (3, "a cat")]
    twice = CountingOptions(splitting="blanks", min_count=2)
    built = build_document_frequencies(captions, tmp_path / "min", options=twice)
    assert built.vocabulary == (END_OF_SENTENCE, "a", "dog", UNKNOWN)
    assert built.facts.unknown_id == 3
    assert built.of_ngram([1, 2, 3]) == 2
    two = CountingOptions(splitting="blanks", max_words=2)
    kept = build_document_frequencies(captions, tmp_path / "max", options=two)
    assert kept.digest == built.digest
    all_kept = build_document_frequencies(captions, tmp_path / "all", options=BLANKS)
    assert all_kept.facts.unknown_id is None


def test_token_ids_are_counted_as_they_are(tmp_path: Path) -> None:
    ids = {"a dog": [3, 70_000], "dog a dog": [70_000, 3, 70_000]}
    built = build_document_frequencies(
        [(1, "a dog"), (2, "dog a dog")],
        tmp_path / "df",
        options=CountingOptions(splitting="ids"),
        encode=lambda caption: ids[caption],
    )
    assert built.facts.is_wide
    assert built.of_ngram([3, 70_000]) == 2
    assert built.of_ngram([70_000, 3, 70_000]) == 1
    with pytest.raises(ValueError, match="gave id 0"):
        build_document_frequencies(
            [(1, "a dog")],
            tmp_path / "df",
            options=CountingOptions(splitting="ids"),
            encode=lambda _: [5, 0],
        )


@pytest.mark.slow
def test_a_vocabulary_beyond_sixteen_bits_is_counted_exactly(tmp_path: Path) -> None:
    # Every image has words of its own, and one that all share.
    images = [
        [[*(f"w{word}" for word in range(700 * i, 700 * i + 700)), "all"]] for i in range(100)
    ]
    captions = [(i, " ".join(words)) for i, image in enumerate(images) for words in image]
    built = build_document_frequencies(captions, tmp_path / "df", options=BLANKS, max_rows=80_000)
    assert built.facts.is_wide
    assert len(built.vocabulary) > NARROW_LIMIT
    expected = document_frequency(images)
    assert built.num_ngrams == len(expected)
    assert built.of_ngram([built.id_of_word["all"]]) == 100
    for ngram in random.Random(0).sample(list(expected), 500):
        ids = [built.id_of_word[str(word)] for word in ngram]
        assert built.of_ngram(ids) == expected[ngram]
        # The same but for one bit of one id, which 16 bits would have lost.
        other = [*ids[:-1], ids[-1] ^ 2**16]
        if other[-1] < len(built.vocabulary):
            words = tuple(built.vocabulary[i] for i in other)
            assert built.of_ngram(other) == expected[words]


def test_keys_are_narrow_while_all_ids_fit_and_wide_beyond() -> None:
    assert not needs_wide(NARROW_LIMIT - MAX_FOREIGN)
    assert needs_wide(NARROW_LIMIT - MAX_FOREIGN + 1)


def test_counts_of_others_are_taken_as_they_are() -> None:
    ngrams = np.array([[1, -1, -1, -1], [1, 2, -1, -1], [0, 1, 2, 3]])
    given_counts = DocumentFrequencies.of_counts(
        ngrams, np.array([5, 2, 1]), num_images=9, counts_end=True
    )
    assert [given_counts.of_ngram(g) for g in ([1], [1, 2], [0, 1, 2, 3], [2])] == [5, 2, 1, 0]
    assert given_counts.num_images == 9


@pytest.mark.parametrize(
    ("ngrams", "counts", "problem"),
    [
        ([[1, 2, 3]], [1], "one count each"),
        ([[-1, -1, -1, -1]], [1], "not be empty"),
        ([[1, -1, 2, -1]], [1], "then -1"),
        ([[1, -1, -1, -1]], [-1], "not negative"),
        ([[1, -1, -1, -1]] * 2, [1, 1], "given twice"),
        ([[2**31 - 1, -1, -1, -1]], [1], "must be below"),
    ],
)
def test_counts_that_make_no_sense_are_an_error(
    ngrams: Sequence[Sequence[int]], counts: Sequence[int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        DocumentFrequencies.of_counts(
            np.array(ngrams), np.array(counts), num_images=3, counts_end=False
        )


def test_no_file_and_another_file_and_a_damaged_one_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "df.arrow"
    with pytest.raises(FrequenciesError, match=r"no document frequencies at .*cider-stats"):
        DocumentFrequencies.open(path)
    path.write_text("hello")
    with pytest.raises(FrequenciesError, match="is no file of document frequencies"):
        DocumentFrequencies.open(path)
    table = pa.table({"a": [1]})
    with path.open("wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(FrequenciesError, match="an Arrow file, but not one"):
        DocumentFrequencies.open(path)

    build_document_frequencies(CAPTIONS, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FrequenciesError, match="damaged"):
        DocumentFrequencies.open(path)
    # One bit of a key, in the middle of the table.
    cell = DocumentFrequencies.of_words([[["a"]]]).cell
    assert len(cell) > 0
    opened_at = whole.index(b"running")
    path.write_bytes(whole.replace(b"running", b"runninh", 1))
    assert opened_at > 0
    with pytest.raises(FrequenciesError, match="damaged"):
        DocumentFrequencies.open(path)
    path.write_bytes(whole.replace(b'"num_images": 4', b'"num_images": 5'))
    with pytest.raises(FrequenciesError, match="damaged"):
        DocumentFrequencies.open(path)


def test_another_version_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "df"
    monkeypatch.setattr(frequencies_module, "VERSION", 2)
    DocumentFrequencies.of_words([[["a"]]]).write(path)
    monkeypatch.undo()
    with pytest.raises(FrequenciesError, match="version 2 and this program reads version 1"):
        DocumentFrequencies.open(path)


def test_a_count_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "df"
    build_document_frequencies(CAPTIONS, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="corpus is empty"):
        build_document_frequencies([], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["df"]


def test_options_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token ids are kept"):
        CountingOptions(splitting="ids", min_count=2)
    with pytest.raises(ValueError, match="1 or more"):
        CountingOptions(min_count=0)
    with pytest.raises(ValueError, match="needs encode"):
        build_document_frequencies(
            CAPTIONS, tmp_path / "df", options=CountingOptions(splitting="ids")
        )


def test_captions_come_from_a_coco_file_whatever_their_order(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    annotations = [{"id": n, "image_id": i, "caption": c} for n, (i, c) in enumerate(CAPTIONS)]
    path.write_text(
        json.dumps({"images": [{"id": i} for i, _ in CAPTIONS], "annotations": annotations})
    )
    assert list(captions_of(path)) == CAPTIONS
    path.write_text(json.dumps({"images": [], "annotations": [{"image_id": 1}]}))
    with pytest.raises(ConversionError, match="annotation 0 needs an integer 'image_id'"):
        list(captions_of(path))
    path.write_text(json.dumps({"images": []}))
    with pytest.raises(ConversionError, match="no list 'annotations'"):
        list(captions_of(path))
