"""Counting document frequencies of a corpus of any size, in bounded memory.

Three passes over files of their own: words get numbers as they come and are written down; the
n-grams of so many captions at a time are sorted into runs; the runs are merged into the table. What
stays in memory is the vocabulary, one block of captions or rows, and nothing that grows with them.

Axes: W words, C captions, N rows of n-grams, K columns, V words of the vocabulary.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rewardtune.tasks.captioning.cider.document_frequencies import (
    END_OF_SENTENCE,
    UNKNOWN,
    DocumentFrequencies,
    Facts,
    Splitting,
    digest_of,
    needs_wide,
    write_frequencies,
)
from rewardtune.tasks.captioning.cider.ngram_counting import RunFolder, counted, merged, ngram_rows
from rewardtune.tasks.captioning.cider.ngram_table import WIDE_LIMIT, Entries, laid_out
from rewardtune.tasks.captioning.ptb.tokenizer import ptb_words

DEFAULT_ROWS = 4_000_000
"""N-grams sorted in memory at a time; some 400 MB."""

_CAPTIONS_AT_A_TIME = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingOptions:
    """How captions become n-grams."""

    splitting: Splitting = "ptb"
    end_of_sentence: bool = False
    """Count the end as the last word of every caption."""
    min_count: int = 1
    """Words that occur less often in all captions become ``UNKNOWN``. Self-critical training: 6."""
    max_words: int | None = None
    """Keep at most so many words, the most frequent (of equals, the first by alphabet)."""

    def __post_init__(self) -> None:
        if self.min_count < 1 or (self.max_words is not None and self.max_words < 1):
            raise ValueError(
                f"min_count and max_words must be 1 or more, got {self.min_count}, {self.max_words}"
            )
        if self.splitting == "ids" and (self.min_count > 1 or self.max_words is not None):
            raise ValueError("token ids are kept as they are: leave min_count and max_words out")


def build_document_frequencies(
    captions: Iterable[tuple[int, str]],
    path: Path,
    *,
    options: CountingOptions = CountingOptions(),
    encode: Callable[[str], Sequence[int]] | None = None,
    pieces: Sequence[str] = (),
    max_rows: int = DEFAULT_ROWS,
    progress: Callable[[int], None] = lambda _: None,
) -> DocumentFrequencies:
    """Count a corpus and write the file. Temporary files stand beside it and are removed.

    The result depends on the captions of each image and on nothing else: not on the order in which
    they come, nor on ``max_rows``.

    Args:
        captions: image id and text of every caption, in any order.
        path: of the file; replaced if there is one.
        encode: a model's tokenizer, without its end token; exactly with splitting "ids". Id 0 is
            the end of a sentence.
        pieces: what each id stands for, with ``encode``.
        max_rows: n-grams in memory at a time.
        progress: called with the captions read so far.

    Returns:
        The file, opened.

    Raises:
        ValueError: no captions, or ids that ``encode`` should not give.
        OSError: no space left.
    """
    if (encode is not None) != (options.splitting == "ids"):
        raise ValueError("splitting 'ids' needs encode, and encode needs splitting 'ids'")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".counting-", dir=path.parent) as name:
        folder = Path(name)
        spool = _Spool(folder)
        vocabulary = _spool_words(
            captions, spool, options=options, encode=encode, progress=progress
        )
        if spool.num_captions == 0:
            raise ValueError("no captions to count: the corpus is empty")
        if encode is None:
            words, id_V = _numbered(vocabulary, spool, options)
        else:
            words, id_V = list(pieces), None
        num_words = max(len(words), spool.largest_id + 1 if id_V is None else 0)
        if num_words > WIDE_LIMIT:
            raise ValueError(f"{num_words} words are more than {WIDE_LIMIT}")
        is_wide = needs_wide(num_words)
        runs = _sorted_runs(
            spool, folder, id_V=id_V, is_wide=is_wide, options=options, max_rows=max_rows
        )
        num_images, num_ngrams = _write_entries(
            counted(merged(runs, num_rows=max_rows)), folder / "entries"
        )
        cell = _written_table(
            folder / "entries", folder / "table", num_ngrams=num_ngrams, is_wide=is_wide
        )
        facts = Facts(
            num_images=num_images,
            num_ngrams=num_ngrams,
            is_wide=is_wide,
            splitting=options.splitting,
            counts_end=options.end_of_sentence,
            unknown_id=words.index(UNKNOWN) if id_V is not None and UNKNOWN in words[-1:] else None,
        )
        write_frequencies(path, facts, words, cell, digest_of(facts, words, cell))
    return DocumentFrequencies.open(path)


class _Spool:
    """Captions as numbers, in two files."""

    def __init__(self, folder: Path) -> None:
        self._words = folder / "words"
        self._captions = folder / "captions"
        self._words.touch()
        self._captions.touch()
        self.num_captions = 0
        self.largest_id = 0

    def add(self, words: array[int], captions: array[int]) -> None:
        """Append ids of words, and of each caption its image and its length."""
        with self._words.open("ab") as file:
            words.tofile(file)
        with self._captions.open("ab") as file:
            captions.tofile(file)
        self.num_captions += len(captions) // 2
        self.largest_id = max(self.largest_id, max(words, default=0))

    def blocks(
        self, *, max_words: int
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]]:
        """Words, lengths and images of so many captions that they have about ``max_words``."""
        word_at = caption_at = 0
        while caption_at < self.num_captions:
            caption_C2 = np.fromfile(
                self._captions, dtype=np.int64, count=2 * max_words, offset=16 * caption_at
            ).reshape(-1, 2)
            num_words_C = np.cumsum(caption_C2[:, 1])
            num = max(1, int(np.searchsorted(num_words_C, max_words, side="right")))
            word_W = np.fromfile(
                self._words, dtype=np.int32, count=int(num_words_C[num - 1]), offset=4 * word_at
            )
            yield word_W, caption_C2[:num, 1].copy(), caption_C2[:num, 0].copy()
            word_at += len(word_W)
            caption_at += num


def _spool_words(
    captions: Iterable[tuple[int, str]],
    spool: _Spool,
    *,
    options: CountingOptions,
    encode: Callable[[str], Sequence[int]] | None,
    progress: Callable[[int], None],
) -> dict[str, int]:
    """Write all captions down; words are numbered from 0 as they come."""
    split = ptb_words if options.splitting == "ptb" else str.split
    number_of: dict[str, int] = {}
    words, lengths = array("i"), array("q")
    for number, (image_id, caption) in enumerate(captions, start=1):
        if encode is None:
            ids: Sequence[int] = [
                number_of.setdefault(word, len(number_of)) for word in split(caption)
            ]
        else:
            ids = encode(caption)
            if len(ids) and min(ids) < 1:
                raise ValueError(
                    f"the tokenizer gave id {min(ids)} for {caption!r}, but 0 ends a sentence: "
                    f"count words, or take a vocabulary whose token 0 is none"
                )
        words.extend(ids)
        lengths.extend((image_id, len(ids)))
        if number % _CAPTIONS_AT_A_TIME == 0:
            spool.add(words, lengths)
            words, lengths = array("i"), array("q")
            progress(number)
    spool.add(words, lengths)
    progress(spool.num_captions)
    return number_of


def _numbered(
    number_of: dict[str, int], spool: _Spool, options: CountingOptions
) -> tuple[list[str], NDArray[np.int32]]:
    """The vocabulary, and the id in it of each word by its number [V].

    The end of a sentence comes first, then words in alphabetical order, last the word for those
    that are too rare, if there are any.
    """
    count_V = np.zeros(len(number_of), dtype=np.int64)
    for word_W, _, _ in spool.blocks(max_words=DEFAULT_ROWS):
        count_V += np.bincount(word_W, minlength=len(number_of))
    words = sorted(number_of)
    kept = [word for word in words if count_V[number_of[word]] >= options.min_count]
    if options.max_words is not None:
        kept.sort(key=lambda word: -count_V[number_of[word]])
        kept = sorted(kept[: options.max_words])
    vocabulary = [END_OF_SENTENCE, *kept]
    if len(kept) < len(words):
        if UNKNOWN in kept:
            raise ValueError(f"the captions hold the word {UNKNOWN!r}, which stands for rare words")
        vocabulary.append(UNKNOWN)
    id_V = np.full(len(number_of), len(vocabulary) - 1, dtype=np.int32)
    for i, word in enumerate(kept, start=1):
        id_V[number_of[word]] = i
    return vocabulary, id_V


def _sorted_runs(
    spool: _Spool,
    folder: Path,
    *,
    id_V: NDArray[np.int32] | None,
    is_wide: bool,
    options: CountingOptions,
    max_rows: int,
) -> list[NDArray[np.uint64]]:
    runs = RunFolder(folder)
    # A word begins up to four n-grams, and each caption has a row of its own.
    for word_W, length_C, image_C in spool.blocks(max_words=max(1, max_rows // 5)):
        if id_V is not None:
            word_W = id_V[word_W]
        if options.end_of_sentence:
            word_W = np.insert(word_W, np.cumsum(length_C), 0)
            length_C = length_C + 1
        runs.add(ngram_rows(word_W, length_C, image_C, is_wide=is_wide))
    return runs.runs()


def _write_entries(blocks: Iterable[Entries], path: Path) -> tuple[int, int]:
    """Write all entries but the first, which counts images; return the number of both."""
    num_images: int | None = None
    num_ngrams = 0
    with path.open("wb") as file:
        for block in blocks:
            row_NK = np.stack([*block.key_KN, block.count_N], axis=1)
            if num_images is None and len(row_NK):
                num_images, row_NK = int(row_NK[0, -1]), row_NK[1:]
            row_NK.tofile(file)
            num_ngrams += len(row_NK)
    return num_images or 0, num_ngrams


def _written_table(
    entries: Path, table: Path, *, num_ngrams: int, is_wide: bool
) -> NDArray[np.uint64]:
    """Lay the entries out, and map the result."""
    with table.open("wb") as file:
        for cells in laid_out(
            _read_entries(entries, is_wide=is_wide), num_ngrams=num_ngrams, is_wide=is_wide
        ):
            cells.tofile(file)
    return np.memmap(table, dtype=np.uint64, mode="r")


def _read_entries(path: Path, *, is_wide: bool) -> Iterator[Entries]:
    num_columns, offset = (3 if is_wide else 2), 0
    while True:
        row_NK = np.fromfile(
            path, dtype=np.uint64, count=num_columns * 2**18, offset=offset
        ).reshape(-1, num_columns)
        if len(row_NK) == 0:
            return
        yield Entries(np.ascontiguousarray(row_NK[:, :-1].T), row_NK[:, -1].copy())
        offset += row_NK.nbytes
