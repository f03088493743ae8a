"""Captions to tokens and back. Axes: T tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.tasks.captioning.codec import CaptionCodec
from rewardtune.tasks.captioning.vocabulary import (
    SPECIAL,
    VocabularyError,
    load_vocabulary,
    write_vocabulary,
)
from tests.rewardtune.tasks.captioning.small_captions import CAPTIONS, write_pieces

LENGTH = 16
STOP = SPECIAL.index("[SEP]")
WORDS = sorted({word for group in CAPTIONS for text in group for word in text.lower().split()})


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> CaptionCodec:
    return CaptionCodec(load_vocabulary(write_pieces(tmp_path_factory.mktemp("pieces"))), LENGTH)


def test_a_caption_is_its_pieces_then_stop_then_zeros(codec: CaptionCodec) -> None:
    encoded = codec.encode("Two DOGS")
    pieces = [str(codec.vocabulary.tokenizer.id_to_token(int(t))) for t in encoded.tokens_T]
    first = pieces.index("[SEP]")
    assert "".join(pieces[:first]).replace("##", "") == "twodogs"
    assert pieces[first + 1 :] == ["[PAD]"] * (LENGTH - first - 1)
    assert encoded.num_dropped == 0
    assert codec.num_pieces(encoded.tokens_T) == first


@given(st.lists(st.sampled_from(WORDS), max_size=4))
def test_captions_come_back(codec: CaptionCodec, words: list[str]) -> None:
    text = " ".join(words)
    encoded = codec.encode(text)
    if encoded.num_dropped == 0:
        assert codec.decode(encoded.tokens_T) == text


@given(st.lists(st.integers(-5, 1000), min_size=LENGTH, max_size=LENGTH))
def test_any_tokens_decode(codec: CaptionCodec, tokens: list[int]) -> None:
    tokens_T = np.array(tokens, dtype=np.int32)
    text = codec.decode(tokens_T)
    assert "[" not in text
    # Nothing after the end counts.
    end = codec.num_pieces(tokens_T)
    cut_T = tokens_T.copy()
    cut_T[end + 1 :] = 0
    assert codec.decode(cut_T) == text


def test_longer_captions_are_cut_counted_and_still_end(codec: CaptionCodec) -> None:
    num_pieces = len(codec.vocabulary.tokenizer.encode("dog " * 40, add_special_tokens=False).ids)
    encoded = codec.encode("dog " * 40)
    assert encoded.num_dropped == num_pieces - (LENGTH - 1)
    assert encoded.tokens_T[-1] == STOP
    assert codec.num_pieces(encoded.tokens_T) == LENGTH - 1


def test_an_end_that_somebody_wrote_into_a_caption_ends_nothing(codec: CaptionCodec) -> None:
    assert codec.decode(codec.encode("a dog [SEP] on grass").tokens_T) == "a dog on grass"


def test_a_full_sequence_without_end_is_all_pieces(codec: CaptionCodec) -> None:
    assert codec.num_pieces(np.full(LENGTH, 9, dtype=np.int32)) == LENGTH


def test_zeros_end_a_caption_where_padding_is_learned(codec: CaptionCodec) -> None:
    padded = CaptionCodec(codec.vocabulary, LENGTH, end="pad")
    assert (codec.stop_tokens, padded.stop_tokens) == ((STOP,), ())
    encoded = padded.encode("two cats")
    assert STOP not in encoded.tokens_T
    assert padded.decode(encoded.tokens_T) == "two cats"
    assert padded.encode("dog " * 40).tokens_T[-1] == 0


def test_padding_that_is_not_token_0_cannot_be_learned_as_the_end(tmp_path: Path) -> None:
    write_vocabulary(["[UNK]", "[PAD]", "[SEP]", "dog"], tmp_path / "vocab.txt")
    vocabulary = load_vocabulary(tmp_path)
    assert CaptionCodec(vocabulary, LENGTH).decode(np.array([3, 2, 0])) == "dog"
    with pytest.raises(VocabularyError, match="needs '.PAD.' as token 0"):
        CaptionCodec(vocabulary, LENGTH, end="pad")
