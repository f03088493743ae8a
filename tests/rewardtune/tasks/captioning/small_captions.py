"""Images with captions, and a vocabulary that spells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rewardtune.datasets.example import Category, Example
from rewardtune.tasks.captioning.cider.document_frequencies import DocumentFrequencies
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.captioning.vocabulary import train_vocabulary, write_vocabulary

CAPTIONS = (
    ("A man's dog runs.", "the dog is running on the grass", "a brown dog on green grass"),
    ("two cats sleep on a sofa", "Two cats are sleeping.", "cats on a red sofa"),
    ("a plate with two eggs and a fork", "eggs on a plate", "two fried eggs with a fork"),
    ("a man riding a wave on a board", "the surfer rides a big wave", "a man on a board"),
)


def example(captions: Sequence[str], *, image_id: int = 7) -> Example:
    return Example(
        image_id=image_id,
        file_name=f"{image_id}.png",
        height=4,
        width=4,
        image=b"",
        xywh_N4=np.zeros((0, 4)),
        category_N=np.zeros(0, np.int64),
        area_N=np.zeros(0),
        is_crowd_N=np.zeros(0, np.bool_),
        annotation_id_N=np.zeros(0, np.int64),
        captions=tuple(captions),
    )


@dataclass(frozen=True)
class CaptionedImages:
    """A data set of ``CAPTIONS``, or of others."""

    groups: Sequence[Sequence[str]] = CAPTIONS
    digest: str = "0"
    categories: Sequence[Category] = ()

    def __len__(self) -> int:
        return len(self.groups)

    def example(self, index: int) -> Example:
        return example(self.groups[index], image_id=index + 1)


def write_pieces(folder: Path, *, size: int = 200) -> Path:
    path = folder / "vocab.txt"
    texts = [caption for captions in CAPTIONS for caption in captions]
    write_vocabulary(train_vocabulary(texts, size=size), path)
    return path


def write_frequencies(folder: Path, *, counts_end: bool = False) -> Path:
    path = folder / f"frequencies-{counts_end}.arrow"
    words = [[ptb_words(caption) for caption in captions] for captions in CAPTIONS]
    DocumentFrequencies.of_words(words, counts_end=counts_end).write(path)
    return path
