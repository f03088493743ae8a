"""Document frequencies: in the references of how many images each n-gram occurs.

CIDEr weighs n-grams by them. They are one Arrow file, which reward workers map into memory and
hand to kernels as it is; see ``ngram_table.py`` for the table in it. Axes: N n-grams, K document
frequencies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rewardtune.tasks.captioning.cider.definition import LONGEST
from rewardtune.tasks.captioning.cider.kernel import keys_of
from rewardtune.tasks.captioning.cider.ngram_counting import counted, ngram_rows, sorted_entries
from rewardtune.tasks.captioning.cider.ngram_table import (
    END_KEY,
    NARROW_LIMIT,
    WIDE_LIMIT,
    Entries,
    home_shift,
    laid_out,
    stride,
)

FORMAT, VERSION = "rewardtune document frequencies", 1
END_OF_SENTENCE = ""
"""The word that ends a sentence where ends count. No word of a text is empty. Its id is 0."""
UNKNOWN = "UNK"
"""The word that stands for all rare ones, where rare ones are not kept."""
MAX_FOREIGN = 4096
"""Ids left free for words that references have and the frequencies do not know."""

Splitting: TypeAlias = Literal["ptb", "blanks", "ids"]
"""How captions become words: as coco-caption's tokenizer does, at white space, or not at all, where
words are a model's tokens."""

_IDF_ENTRIES = 2**16


class FrequenciesError(ValueError):
    """A file of document frequencies that is missing, damaged, or something else."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says of itself, beside words and table."""

    num_images: int
    num_ngrams: int
    is_wide: bool
    splitting: Splitting
    counts_end: bool
    """Every caption was counted with ``END_OF_SENTENCE`` as its last word."""
    unknown_id: int | None
    """Id of ``UNKNOWN``; None: rare words were kept."""


@dataclass(frozen=True, eq=False)
class DocumentFrequencies:
    """How many images each n-gram occurs with, among how many images."""

    facts: Facts
    vocabulary: Sequence[str]
    """Words by id; empty where only ids are known."""
    cell: NDArray[np.uint64]
    """The table; read-only."""
    digest: str
    """Hex SHA-256 of everything above."""

    @property
    def num_images(self) -> int:
        return self.facts.num_images

    @property
    def num_ngrams(self) -> int:
        return self.facts.num_ngrams

    @property
    def shift(self) -> int:
        """Bits by which a key is shifted to give its home."""
        return home_shift(self.num_ngrams)

    @property
    def limit(self) -> int:
        """Words from this id on are in no n-gram of any table."""
        return WIDE_LIMIT if self.facts.is_wide else NARROW_LIMIT

    @cached_property
    def id_of_word(self) -> Mapping[str, int]:
        """Ids of the words; of ``END_OF_SENTENCE`` it is 0."""
        return {word: i for i, word in enumerate(self.vocabulary)}

    @cached_property
    def idf_K(self) -> NDArray[np.float64]:
        """Weight of an n-gram that occurs with k images, for the first k."""
        # An n-gram may occur with more images than there are, in a file of somebody's own.
        frequency_K = np.arange(min(max(self.num_images, 1) + 1, _IDF_ENTRIES))
        idf_K: NDArray[np.float64] = np.log(self.num_images) - np.log(np.maximum(1, frequency_K))
        return idf_K

    def of_ngram(self, ngram: Sequence[int]) -> int:
        """In how many images the n-gram of word ids occurs; 0 if in none.

        Raises:
            ValueError: not 1 to 4 words, or an id below 0.
        """
        if not 1 <= len(ngram) <= LONGEST or min(ngram) < 0:
            raise ValueError(f"an n-gram is 1 to {LONGEST} ids of 0 or more, got {list(ngram)}")
        if max(ngram) >= self.limit:
            return 0
        word_N4 = np.array([[*ngram, *[-1] * (LONGEST - len(ngram))]], dtype=np.int32)
        key = keys_of(word_N4, self.facts.is_wide)[:, 0]
        entry_cells = self.cell.reshape(-1, stride(is_wide=self.facts.is_wide))
        slot = int(key[0]) >> self.shift
        while tuple(entry_cells[slot, :-1]) < tuple(key):
            slot += 1
        return int(entry_cells[slot, -1]) if np.array_equal(entry_cells[slot, :-1], key) else 0

    @staticmethod
    def of_words(
        images: Sequence[Sequence[Sequence[str]]],
        *,
        splitting: Splitting = "ptb",
        counts_end: bool = False,
    ) -> DocumentFrequencies:
        """Count the references of some images, in memory.

        Args:
            images: of each image, of each reference, its words.
            splitting: how the words were made of captions, for whoever gives more of them.
            counts_end: add the end of the sentence to every reference.
        """
        vocabulary = [
            END_OF_SENTENCE,
            *sorted({word for image in images for words in image for word in words}),
        ]
        id_of = {word: i for i, word in enumerate(vocabulary)}
        end = [0] if counts_end else []
        ids = [[*map(id_of.__getitem__, words), *end] for image in images for words in image]
        is_wide = needs_wide(len(vocabulary))
        rows = ngram_rows(
            np.array([i for words in ids for i in words], dtype=np.int32),
            np.array([len(words) for words in ids], dtype=np.int64),
            np.repeat(np.arange(len(images)), [len(image) for image in images]),
            is_wide=is_wide,
        )
        blocks = list(counted([rows])) if rows.shape[1] else []
        entries = Entries(
            np.concatenate([block.key_KN for block in blocks], axis=1)
            if blocks
            else np.zeros((2 if is_wide else 1, 0), dtype=np.uint64),
            np.concatenate([np.zeros(0, np.uint64), *(block.count_N for block in blocks)]),
        )
        # The first stands for the captions themselves.
        return DocumentFrequencies._of_entries(
            Entries(entries.key_KN[:, 1:], entries.count_N[1:]),
            vocabulary=vocabulary,
            num_images=len(images),
            splitting=splitting,
            counts_end=counts_end,
        )

    @staticmethod
    def of_counts(
        ngram_N4: NDArray[np.integer[Any]],
        count_N: NDArray[np.integer[Any]],
        *,
        num_images: int,
        vocabulary: Sequence[str] = (),
        counts_end: bool,
        splitting: Splitting = "ids",
    ) -> DocumentFrequencies:
        """Frequencies that somebody else counted.

        Args:
            ngram_N4: word ids of each n-gram, filled up with -1; id 0 is the end of a sentence.
            count_N: images it occurs with.

        Raises:
            ValueError: shapes that do not fit, an n-gram given twice, ids out of range, counts
                below 0.
        """
        if ngram_N4.ndim != 2 or ngram_N4.shape[1] != LONGEST or len(count_N) != len(ngram_N4):
            raise ValueError(
                f"n-grams must be ids [N, {LONGEST}] with one count each, got "
                f"{list(ngram_N4.shape)} and {list(count_N.shape)}"
            )
        is_word_N4 = ngram_N4 >= 0
        if np.any(ngram_N4 < -1) or np.any(is_word_N4[:, 1:] & ~is_word_N4[:, :-1]):
            raise ValueError("n-grams must be ids of 0 or more, then -1 up to the fourth place")
        if not np.all(is_word_N4[:, 0]) or np.any(count_N < 0) or num_images < 1:
            raise ValueError("n-grams must not be empty, counts not negative, and images 1 or more")
        largest = max(int(ngram_N4.max(initial=0)) + 1, len(vocabulary))
        if largest > WIDE_LIMIT:
            raise ValueError(f"word ids must be below {WIDE_LIMIT}, got {largest - 1}")
        key_KN = keys_of(np.ascontiguousarray(ngram_N4, dtype=np.int32), needs_wide(largest))
        return DocumentFrequencies._of_entries(
            sorted_entries(key_KN, np.asarray(count_N).astype(np.uint64)),
            vocabulary=vocabulary,
            num_images=num_images,
            splitting=splitting,
            counts_end=counts_end,
        )

    @staticmethod
    def _of_entries(
        entries: Entries,
        *,
        vocabulary: Sequence[str],
        num_images: int,
        splitting: Splitting,
        counts_end: bool,
    ) -> DocumentFrequencies:
        facts = Facts(
            num_images=num_images,
            num_ngrams=len(entries),
            is_wide=entries.is_wide,
            splitting=splitting,
            counts_end=counts_end,
            unknown_id=None,
        )
        pieces = laid_out([entries], num_ngrams=len(entries), is_wide=entries.is_wide)
        cell = np.concatenate(list(pieces))
        cell.flags.writeable = False
        return DocumentFrequencies(
            facts, tuple(vocabulary), cell, digest_of(facts, vocabulary, cell)
        )

    @staticmethod
    def open(path: Path) -> DocumentFrequencies:
        """Map a file into memory, after checking all of it against its digest.

        Raises:
            FrequenciesError: there is none, it is something else, of another version, or damaged.
        """
        path = Path(path)
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                metadata = reader.schema.metadata or {}
                batch = reader.get_batch(0) if reader.num_record_batches == 1 else None
        except FileNotFoundError as error:
            raise FrequenciesError(
                f"no document frequencies at {path}: make them with rewardtune data cider-stats"
            ) from error
        except (OSError, pa.ArrowInvalid) as error:
            raise FrequenciesError(
                f"{path} is no file of document frequencies, or a damaged one ({error}): make it "
                f"again with rewardtune data cider-stats"
            ) from error
        told = _told(metadata, path)
        try:
            assert batch is not None
            facts = Facts(**told["facts"])
            words = batch.column("vocabulary").values
            cell = batch.column("cells").values.to_numpy(zero_copy_only=True)
            vocabulary = tuple(words.to_pylist())
            is_whole = (
                digest_of(facts, vocabulary, cell) == told["digest"]
                and len(cell)
                >= stride(is_wide=facts.is_wide) * (2 ** (64 - home_shift(facts.num_ngrams)) + 1)
                and int(cell[-stride(is_wide=facts.is_wide)]) == END_KEY
            )
        except (AssertionError, KeyError, TypeError, AttributeError, pa.ArrowInvalid):
            is_whole = False
        if not is_whole:
            raise FrequenciesError(
                f"{path} is damaged: its contents are not those of its digest; make it again with "
                f"rewardtune data cider-stats"
            )
        return DocumentFrequencies(facts, vocabulary, cell, told["digest"])

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_frequencies(path, self.facts, self.vocabulary, self.cell, self.digest)


def needs_wide(num_words: int) -> bool:
    """Whether ids no longer fit in 16 bits, with room for words not known yet."""
    return num_words + MAX_FOREIGN > NARROW_LIMIT


def digest_of(facts: Facts, vocabulary: Iterable[str], cell: NDArray[np.uint64]) -> str:
    hasher = hashlib.sha256(_json_of(facts).encode())
    for word in vocabulary:
        encoded = word.encode("utf-8", "surrogatepass")
        hasher.update(b"%d:" % len(encoded) + encoded)
    hasher.update(np.ascontiguousarray(cell).data)
    return hasher.hexdigest()


def write_frequencies(
    path: Path, facts: Facts, vocabulary: Sequence[str], cell: NDArray[np.uint64], digest: str
) -> None:
    """One row of two lists, so that each is one stretch of the file, whatever its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        [
            pa.field("vocabulary", pa.large_list(pa.large_string())),
            pa.field("cells", pa.large_list(pa.uint64())),
        ],
        metadata={
            "format": FORMAT,
            "version": str(VERSION),
            "digest": digest,
            "facts": _json_of(facts),
        },
    )
    batch = pa.record_batch(
        [
            _one_list(pa.array(vocabulary, pa.large_string())),
            _one_list(pa.Array.from_buffers(pa.uint64(), len(cell), [None, pa.py_buffer(cell)])),
        ],
        schema=schema,
    )
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _one_list(values: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _json_of(facts: Facts) -> str:
    fields = {name: getattr(facts, name) for name in Facts.__slots__}
    return json.dumps(fields, sort_keys=True)


def _told(metadata: Mapping[bytes, bytes], path: Path) -> dict[str, Any]:
    if metadata.get(b"format", b"").decode() != FORMAT:
        raise FrequenciesError(
            f"{path} is an Arrow file, but not one of document frequencies: give one that "
            f"rewardtune data cider-stats wrote"
        )
    version = metadata.get(b"version", b"").decode()
    if version != str(VERSION):
        raise FrequenciesError(
            f"{path} is of version {version} and this program reads version {VERSION}: make it "
            f"again with rewardtune data cider-stats"
        )
    return {
        "facts": json.loads(metadata[b"facts"]),
        "digest": metadata[b"digest"].decode(),
    }
