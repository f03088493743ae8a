"""A policy's own tokens as the words of n-grams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rewardtune.tasks.captioning.vocabulary import STOP, load_vocabulary


def piece_encoder(
    path: Path, *, stop: str = STOP
) -> tuple[Callable[[str], list[int]], tuple[str, ...]]:
    """A caption's ids by the tokenizer at ``path``, and the piece that each id stands for.

    Args:
        stop: the piece that ends a caption; one inside a caption is left out.

    Raises:
        VocabularyError: it cannot be read.
    """
    vocabulary = load_vocabulary(path, stop=stop)
    tokenizer, end = vocabulary.tokenizer, vocabulary.stop_token

    def encode(caption: str) -> list[int]:
        ids = tokenizer.encode(caption, add_special_tokens=False).ids
        return [token for token in ids if token != end]

    return encode, tuple(tokenizer.id_to_token(token) or "" for token in range(vocabulary.size))
