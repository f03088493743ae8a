"""CIDEr-D as the reward of captions: whole groups at once, references cooked once and kept.

Unit: 0 to 10, as ``cider/definition.py`` defines it. Axes: I images, S candidates of an image,
C candidates of all images, T tokens of a sequence, W words of all captions.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.captioning.cider.cooked import Record, RecordCache
from rewardtune.tasks.captioning.cider.definition import SIGMA
from rewardtune.tasks.captioning.cider.document_frequencies import MAX_FOREIGN, DocumentFrequencies
from rewardtune.tasks.captioning.cider.kernel import cook, score
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words
from rewardtune.tasks.kernel import plain

Candidates: TypeAlias = Sequence[Sequence[str]] | NDArray[np.integer[Any]]
"""Words of each caption, or token ids [S, T] that end at the first 0."""
References: TypeAlias = Sequence[str] | Sequence[Sequence[str]] | Sequence[Sequence[int]]
"""Captions as they were written, or the words or token ids of each, without an end."""

DEFAULT_CACHE_BYTES = 256 * 2**20
MAX_REFERENCE_WORDS = 2**16 - 1
"""Counts in references have 16 bits."""

# Beyond that many words' difference the penalty is 0 in float64.
_PENALTY_D = np.exp(-(np.arange(256.0) ** 2) / (2 * SIGMA**2))


class CaptionReward:
    """CIDEr-D of candidates against the references of their image.

    Pure: a score depends on nothing but the candidate, its references and the frequencies. What is
    kept from one call to the next only saves time, and never grows beyond ``cache_bytes``.
    """

    def __init__(
        self,
        frequencies: DocumentFrequencies,
        *,
        end_of_sentence: bool = False,
        max_reference_words: int | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """
        Args:
            frequencies: of the training set, as a rule. They also say how references given as text
                are split into words.
            end_of_sentence: the end is a word of every reference, and of candidates that have one
                (token ids: a 0; words: a last word ``END_OF_SENTENCE``). Rewards ending a sentence
                where references end, as self-critical training does.
            max_reference_words: cut references there; one that long has no end. Self-critical
                training cuts at 16.
            cache_bytes: for cooked references, some 10 kB an image.

        Raises:
            ValueError: ``end_of_sentence`` with frequencies that were counted without it.
        """
        if end_of_sentence and not frequencies.facts.counts_end:
            raise ValueError(
                "scoring the end of a sentence needs frequencies that count it: make them with "
                "rewardtune data cider-stats --end-of-sentence"
            )
        if max_reference_words is not None and max_reference_words < 1:
            raise ValueError(f"max_reference_words must be 1 or more, got {max_reference_words}")
        self._frequencies = frequencies
        self._counts_end = end_of_sentence
        self._max_reference_words = max_reference_words
        self._cache = RecordCache(max_bytes=cache_bytes)
        self._id_of = frequencies.id_of_word

    @property
    def num_cached_bytes(self) -> int:
        return self._cache.num_bytes

    def score(self, candidates: Candidates, references: References) -> NDArray[np.float64]:
        """CIDEr-D of some candidates for one image [S].

        Args:
            candidates: any number of them; each may be empty.
            references: at least one, of the same image.

        Raises:
            ValueError: no references, ids that are negative or beyond the vocabulary, or words
                where the frequencies are of token ids.
        """
        return self.score_batch([candidates], [references])

    def score_batch(
        self,
        candidates_I: Sequence[Candidates] | NDArray[np.integer[Any]],
        references_I: Sequence[References],
    ) -> NDArray[np.float64]:
        """CIDEr-D of the candidates of several images [C], in their order.

        Args:
            candidates_I: of each image; all words or all token ids. Token ids of groups of one
                size are fastest as one array [I, S, T].
            references_I: of each image.

        Raises:
            ValueError: as ``score``, or not one list of references per image.
        """
        if len(candidates_I) != len(references_I):
            raise ValueError(
                f"{len(candidates_I)} groups of candidates need as many lists of references, got "
                f"{len(references_I)}"
            )
        scores: list[NDArray[np.float64]] = []
        records: list[Record] = []
        first = 0
        for i, references in enumerate(references_I):
            key = _key(references)
            record = self._cache.get(key)
            if record is None:
                cell, foreign = self._cooked(references)
                if not self._cache.has_room_for(key, cell):
                    scores.append(self._scores(candidates_I[first:i], records))
                    self._cache.clear()
                    records, first = [], i
                record = self._cache.add(key, cell, foreign)
            records.append(record)
        scores.append(self._scores(candidates_I[first:], records))
        return np.concatenate(scores)

    @staticmethod
    def warm_up() -> None:
        """Compile the kernels now (seconds, once per machine; later read from numba's cache)."""
        CaptionReward(DocumentFrequencies.of_words([[["a"]]])).score([["a"]], [["a"]])

    def _scores(
        self,
        candidates_I: Sequence[Candidates] | NDArray[np.integer[Any]],
        records: Sequence[Record],
    ) -> NDArray[np.float64]:
        if not records:
            return np.zeros(0)
        if isinstance(candidates_I, np.ndarray) or isinstance(candidates_I[0], np.ndarray):
            word_W, length_C, size_I = self._tokens(cast(Any, candidates_I))
        else:
            word_W, length_C, size_I = self._words(
                cast(Sequence[Sequence[Sequence[str]]], candidates_I), records
            )
        offset_C = np.zeros(len(length_C) + 1, dtype=np.int64)
        np.cumsum(length_C, out=offset_C[1:])
        frequencies = self._frequencies
        return score(
            word_W,
            offset_C,
            np.repeat(np.array([record.at for record in records], dtype=np.int64), size_I),
            self._cache.cell,
            frequencies.limit,
            frequencies.facts.is_wide,
            self._counts_end,
            frequencies.cell,
            frequencies.shift,
            frequencies.idf_K,
            _PENALTY_D,
        )

    def _tokens(
        self, tokens_I: NDArray[np.integer[Any]] | Sequence[NDArray[np.integer[Any]]]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Ids of all captions, the length of each caption, and the captions of each image."""
        if isinstance(tokens_I, np.ndarray):
            if tokens_I.ndim != 3:
                raise ValueError(f"tokens must be ids [I, S, T], got {list(tokens_I.shape)}")
            num_images, num_samples, length = tokens_I.shape
            flat_W = tokens_I.reshape(-1)
            length_C = np.full(num_images * num_samples, length, dtype=np.int64)
            size_I = np.full(num_images, num_samples, dtype=np.int64)
        else:
            for tokens_ST in tokens_I:
                if not isinstance(tokens_ST, np.ndarray) or tokens_ST.ndim != 2:
                    raise ValueError(
                        f"tokens must be an array of ids [S, T] for every image, got "
                        f"{type(tokens_ST).__name__} {list(np.shape(tokens_ST))}"
                    )
            flat_W = np.concatenate([tokens_ST.reshape(-1) for tokens_ST in tokens_I])
            size_I = np.array([len(tokens_ST) for tokens_ST in tokens_I], dtype=np.int64)
            length_C = np.repeat([tokens_ST.shape[1] for tokens_ST in tokens_I], size_I)
        if not np.issubdtype(flat_W.dtype, np.integer):
            raise ValueError(f"tokens must be integers, got {flat_W.dtype}")
        if len(flat_W):
            self._check_ids(int(flat_W.min()), int(flat_W.max()), of="a candidate")
        return plain(flat_W, np.int32), plain(length_C, np.int64), size_I

    def _words(
        self, words_I: Sequence[Sequence[Sequence[str]]], records: Sequence[Record]
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        ids, lengths = array("i"), array("q")
        id_of = self._id_of.__getitem__
        for group, record in zip(words_I, records, strict=True):
            for words in group:
                lengths.append(len(words))
                try:
                    ids.fromlist(list(map(id_of, words)))
                except (KeyError, TypeError):
                    ids.fromlist(self._ids_with_foreign(words, record.foreign))
        return (
            np.frombuffer(ids, dtype=np.int32) if ids else np.zeros(0, dtype=np.int32),
            np.frombuffer(lengths, dtype=np.int64) if lengths else np.zeros(0, dtype=np.int64),
            np.array([len(group) for group in words_I], dtype=np.int64),
        )

    def _ids_with_foreign(self, words: Sequence[str], known: Mapping[str, int]) -> list[int]:
        """Words that neither frequencies nor references know get ids that no table knows."""
        self._check_words(words)
        rare = self._frequencies.facts.unknown_id
        own: dict[str, int] = {}
        ids = []
        for word in words:
            found = self._id_of.get(word, known.get(word, rare))
            if found is None:
                found = own.setdefault(word, self._frequencies.limit + len(own))
            ids.append(found)
        return ids

    def _cooked(self, references: References) -> tuple[NDArray[np.uint64], Mapping[str, int]]:
        if len(references) == 0:
            raise ValueError("an image without reference captions cannot be scored: leave it out")
        foreign: dict[str, int] = {}
        ids_R = [self._reference_ids(reference, foreign) for reference in references]
        if len(foreign) > MAX_FOREIGN:
            raise ValueError(
                f"the references of one image have {len(foreign)} words that the frequencies do "
                f"not know, and {MAX_FOREIGN} is the most: are they of another language?"
            )
        if max(map(len, ids_R)) > MAX_REFERENCE_WORDS:
            raise ValueError(
                f"a reference has more than {MAX_REFERENCE_WORDS} words: is it one caption?"
            )
        frequencies = self._frequencies
        cell = cook(
            np.array([i for ids in ids_R for i in ids], dtype=np.int32),
            np.array([len(ids) for ids in ids_R], dtype=np.int64),
            frequencies.facts.is_wide,
            frequencies.cell,
            frequencies.shift,
            frequencies.idf_K,
        )
        return cell, foreign

    def _reference_ids(self, reference: object, foreign: dict[str, int]) -> list[int]:
        splitting = self._frequencies.facts.splitting
        words: Sequence[Any]
        if isinstance(reference, str):
            if splitting == "ids":
                raise ValueError("frequencies of token ids need references as token ids, got text")
            words = ptb_words(reference) if splitting == "ptb" else reference.split()
        else:
            words = list(cast(Iterable[Any], reference))
        limit = self._max_reference_words
        ends = self._counts_end and (limit is None or len(words) < limit)
        ids = self._ids_of_reference(words[:limit], foreign)
        if 0 in ids:
            raise ValueError(f"a reference holds the end of a sentence, give it without: {words}")
        return [*ids, 0] if ends else ids

    def _ids_of_reference(self, words: Sequence[Any], foreign: dict[str, int]) -> list[int]:
        if words and not isinstance(words[0], str):
            ids = [int(word) for word in words]
            self._check_ids(min(ids), max(ids), of="a reference")
            return ids
        self._check_words(words)
        rare = self._frequencies.facts.unknown_id
        num_words = max(1, len(self._frequencies.vocabulary))
        ids = []
        for word in words:
            found = self._id_of.get(word, rare)
            if found is None:
                found = foreign.setdefault(word, num_words + len(foreign))
            ids.append(found)
        return ids

    def _check_ids(self, smallest: int, largest: int, *, of: str) -> None:
        num_words = len(self._frequencies.vocabulary) or self._frequencies.limit
        if smallest < 0 or largest >= num_words:
            wrong = smallest if smallest < 0 else largest
            raise ValueError(
                f"{of} has the token id {wrong}, and the frequencies know 0 to {num_words - 1}: "
                f"use frequencies counted with the same vocabulary"
            )

    def _check_words(self, words: Sequence[Any]) -> None:
        wrong = [word for word in words if not isinstance(word, str)]
        if wrong:
            raise ValueError(f"a caption must be a list of words, got {wrong[0]!r} among them")
        if words and not self._frequencies.vocabulary:
            raise ValueError("frequencies of token ids score token ids, got words")


def _key(references: References) -> Hashable:
    """The contents, so that equal references share a record and changed ones do not."""
    if len(references) and isinstance(references[0], str):
        return tuple(cast(Sequence[str], references))
    return tuple(tuple(reference) for reference in references)
