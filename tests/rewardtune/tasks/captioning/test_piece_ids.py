"""A policy's tokens as words of n-grams. Axes: S candidates, T tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rewardtune.tasks.captioning.cider.frequency_builder import (
    CountingOptions,
    build_document_frequencies,
)
from rewardtune.tasks.captioning.piece_ids import piece_encoder
from rewardtune.tasks.captioning.reward import CaptionReward
from rewardtune.tasks.captioning.vocabulary import train_vocabulary, write_vocabulary

CAPTIONS = [(1, "a dog runs"), (1, "the dog sits"), (2, "a cat sits"), (3, "the cat runs")]


def test_sampled_tokens_score_against_references_of_the_same_tokenizer(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    write_vocabulary(
        train_vocabulary((text for _, text in CAPTIONS), size=60), tmp_path / "vocab.txt"
    )
    encode, pieces = piece_encoder(tmp_path / "vocab.txt")
    frequencies = build_document_frequencies(
        CAPTIONS,
        tmp_path / "df",
        options=CountingOptions(splitting="ids", end_of_sentence=True),
        encode=encode,
        pieces=pieces,
    )
    reward = CaptionReward(frequencies, end_of_sentence=True)
    references = [encode(text) for image, text in CAPTIONS if image == 1]
    ids_ST = np.array([[*references[0], 0, 0, 0]])
    assert reward.score(ids_ST, references[:1]) == pytest.approx([10])
    assert [pieces[i] for i in references[0]] == ["a", "dog", "runs"]
    with pytest.raises(ValueError, match="references as token ids"):
        reward.score(ids_ST, ["a dog runs"])
