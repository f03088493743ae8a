"""Captions as tokens, and back.

A caption is its word pieces, then the stop token, then zeros. There is no token before the
first piece: a policy starts from its own start symbol.

Axes: T tokens of a sequence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.captioning.vocabulary import (
    PADDING,
    VocabularyError,
    WordPieces,
    load_vocabulary,
)
from rewardtune.tasks.vocabulary import Vocabulary

End = Literal["sep", "pad"]
"""sep: the stop token ends a caption, and nothing after it counts. pad: zeros fill the sequence up
and are learned and drawn like any other token, as the padding of boxes is."""

_APOSTROPHE = re.compile(r"(?<=\w) ' (?=(?:s|t|d|m|re|ve|ll)\b)")


@dataclass(frozen=True, slots=True)
class Encoded:
    tokens_T: NDArray[np.int32]
    num_dropped: int
    """Pieces that had no room."""


@dataclass(frozen=True)
class CaptionCodec:
    """Texts to sequences of ``sequence_length`` tokens, and any tokens to a text."""

    vocabulary: WordPieces
    sequence_length: int
    end: End = "sep"

    def __post_init__(self) -> None:
        # With end = "sep" zeros only stand where nothing was chosen, and need not mean anything.
        if self.end == "pad" and not self.vocabulary.has(0, PADDING):
            raise VocabularyError(
                f"end = 'pad' needs '{PADDING}' as token 0, but vocabulary {self.vocabulary.path} "
                f"has it elsewhere or not at all: use end = 'sep'"
            )

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.size

    @property
    def end_token(self) -> int:
        """The first of these ends a caption."""
        return self.vocabulary.stop_token if self.end == "sep" else 0

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """After which nothing is drawn; none: every position is."""
        return (self.vocabulary.stop_token,) if self.end == "sep" else ()

    def encode(self, caption: str) -> Encoded:
        """A caption as tokens [T]. The end always has a place: pieces beyond it are dropped."""
        encoding = self.vocabulary.tokenizer.encode(caption, add_special_tokens=False)
        pieces = np.asarray(encoding.ids, dtype=np.int32)
        # Somebody may have written "[SEP]" in a caption: it is no end.
        pieces = pieces[pieces != self.end_token]
        kept = pieces[: self.sequence_length - 1]
        tokens_T = np.zeros(self.sequence_length, dtype=np.int32)
        tokens_T[: len(kept)] = kept
        if self.end == "sep":
            tokens_T[len(kept)] = self.end_token
        return Encoded(tokens_T, num_dropped=len(pieces) - len(kept))

    def num_pieces(self, tokens_T: NDArray[np.int32]) -> int:
        """Tokens before the end; all of them where there is none."""
        ends = np.flatnonzero(tokens_T == self.end_token)
        return int(ends[0]) if len(ends) else len(tokens_T)

    def decode(self, tokens_T: NDArray[np.int32]) -> str:
        """The text before the end; special pieces and numbers beyond the vocabulary say nothing."""
        ids = tokens_T[: self.num_pieces(tokens_T)]
        words = [int(token) for token in ids if int(token) in self._spoken]
        text = str(self.vocabulary.tokenizer.decode(words, skip_special_tokens=True)).strip()
        # BERT's pieces do not tell "man's" from "man ' s", and references have the former.
        return _APOSTROPHE.sub("'", text)

    @cached_property
    def _spoken(self) -> frozenset[int]:
        """Tokens that stand for something: not the start, the padding, or the mask."""
        tokenizer = self.vocabulary.tokenizer
        added = tokenizer.get_added_tokens_decoder()
        special = {token for token, piece in added.items() if piece.special}
        special.add(self.vocabulary.stop_token)
        return frozenset(tokenizer.get_vocab(with_added_tokens=True).values()) - special


@dataclass(frozen=True, kw_only=True)
class CaptionTokens(Vocabulary):
    """What a captioner draws; only who asks what it means waits for the digest of its pieces."""

    codec: CaptionCodec

    def check_folder(self, folder: Path) -> None:
        try:
            own = load_vocabulary(folder)
        except VocabularyError:
            return  # there is no tokenizer, or one with other special pieces
        if own.digest != self.codec.vocabulary.digest:
            raise VocabularyError(
                "task_options.vocabulary is of other pieces than the model's own tokenizer in "
                f"{folder}: set it to that folder"
            )

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "end": self.codec.end,
            "end_token": self.codec.end_token,
            "pieces_digest": self.codec.vocabulary.digest,
        }
