"""Tokenizers from files, against transformers' own reading of the same files."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import BertTokenizer

from rewardtune.tasks.captioning.vocabulary import (
    SPECIAL,
    VocabularyError,
    load_vocabulary,
    train_vocabulary,
    write_vocabulary,
)
from tests.rewardtune.tasks.captioning.small_captions import CAPTIONS, write_pieces

TEXTS = [caption for captions in CAPTIONS for caption in captions]


def ids(path: Path, text: str) -> list[int]:
    return list(load_vocabulary(path).tokenizer.encode(text, add_special_tokens=False).ids)


def test_a_text_file_is_read_as_bert_s_tokenizer_reads_it(tmp_path: Path) -> None:
    path = write_pieces(tmp_path)
    bert = BertTokenizer(str(path), do_lower_case=True)
    for text in [*TEXTS, "Ünïcode DOGS, and wave-riding!", "grass\tgreen\n", "犬 dog", ""]:
        assert ids(path, text) == bert.encode(text, add_special_tokens=False), text


def test_a_model_s_folder_and_its_json_are_the_same_vocabulary(tmp_path: Path) -> None:
    path = write_pieces(tmp_path)
    BertTokenizer(str(path), do_lower_case=True).save_pretrained(tmp_path / "model")
    text, folder = load_vocabulary(path), load_vocabulary(tmp_path / "model")
    json = load_vocabulary(tmp_path / "model" / "tokenizer.json")
    assert text.digest == folder.digest == json.digest
    assert (text.size, text.stop_token) == (folder.size, folder.stop_token)
    for caption in TEXTS:
        assert ids(path, caption) == ids(tmp_path / "model", caption)


def test_a_cased_model_keeps_its_letters(tmp_path: Path) -> None:
    write_vocabulary([*SPECIAL, "dog", "Dog"], tmp_path / "vocab.txt")
    assert ids(tmp_path, "Dog dog") == [5, 5]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert ids(tmp_path, "Dog dog") == [6, 5]


def test_a_trained_vocabulary_spells_its_captions(tmp_path: Path) -> None:
    path = write_pieces(tmp_path)
    vocabulary = load_vocabulary(path)
    unknown = vocabulary.tokenizer.token_to_id("[UNK]")
    assert all(unknown not in ids(path, text) for text in TEXTS)
    pieces = path.read_text().splitlines()
    assert tuple(pieces[:5]) == SPECIAL
    assert vocabulary.stop_token == pieces.index("[SEP]")
    assert train_vocabulary(TEXTS, size=200) == pieces


def test_a_vocabulary_without_the_stop_piece_is_refused(tmp_path: Path) -> None:
    write_vocabulary(["[PAD]", "[UNK]", "dog"], tmp_path / "vocab.txt")
    with pytest.raises(VocabularyError, match=r"has no '\[SEP\]', the piece that ends a caption"):
        load_vocabulary(tmp_path)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        (["[UNK]", "[SEP]", "dog", "cat", "dog"], "lists 'dog' twice"),
        (["[PAD]", "[SEP]", "dog"], r"has no '\[UNK\]'"),
    ],
)
def test_odd_files_say_what_is_odd(tmp_path: Path, pieces: list[str], message: str) -> None:
    write_vocabulary(pieces, tmp_path / "vocab.txt")
    with pytest.raises(VocabularyError, match=message):
        load_vocabulary(tmp_path / "vocab.txt")


def test_what_is_no_vocabulary_says_so(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"no vocabulary at .*give a tokenizer\.json"):
        load_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(VocabularyError, match="cannot be read"):
        load_vocabulary(tmp_path)
    with pytest.raises(ValueError, match="no captions to learn"):
        train_vocabulary([], size=100)
    with pytest.raises(ValueError, match="has no room"):
        train_vocabulary(TEXTS, size=10)
