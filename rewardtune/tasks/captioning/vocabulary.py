"""Word pieces: a tokenizer read from local files, or trained on a corpus.

The tokenizers library is read here and nowhere else; it needs neither torch nor a network.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, STOP = "[PAD]", "[SEP]"
SPECIAL = (PADDING, "[UNK]", "[CLS]", STOP, "[MASK]")
"""First entries of a vocabulary trained here, BERT's own words for them."""

_JSON, _TEXT = "tokenizer.json", "vocab.txt"
_INSIDE = "##"
"""Before pieces that do not begin a word."""


class VocabularyError(ValueError):
    """A tokenizer that cannot be read, or lacks what captions need; one line that names it."""


@dataclass(frozen=True)
class WordPieces:
    """A tokenizer's pieces and the token that ends a caption."""

    path: Path
    tokenizer: Tokenizer
    stop_token: int

    @property
    def size(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of which piece each token is."""
        pieces = sorted(self.tokenizer.get_vocab(with_added_tokens=True).items())
        return hashlib.sha256(json.dumps(pieces).encode()).hexdigest()

    def has(self, token: int, piece: str) -> bool:
        return bool(self.tokenizer.token_to_id(piece) == token)


def load_vocabulary(path: Path, *, stop: str = STOP) -> WordPieces:
    """Read a tokenizer.

    Args:
        path: a ``tokenizer.json`` of any kind, a ``vocab.txt`` (one piece per line, BERT's rules,
            lower case), or a folder that holds one of them, such as a model's.
        stop: the piece that ends a caption.

    Raises:
        VocabularyError: there is none, it cannot be read, or it has no such piece.
        ModuleNotFoundError: the tokenizers library is not installed.
    """
    path = Path(path)
    file = _file_in(path)
    tokenizer = _from_json(file) if file.suffix == ".json" else _from_text(file, folder=path)
    # Length and special tokens are the codec's business.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    stop_token = tokenizer.token_to_id(stop)
    if stop_token is None:
        raise VocabularyError(
            f"vocabulary {file} has no '{stop}', the piece that ends a caption: take BERT's own "
            f"vocabulary, or name the piece that does in the task option stop"
        )
    return WordPieces(path=path, tokenizer=tokenizer, stop_token=stop_token)


def train_vocabulary(captions: Iterable[str], *, size: int) -> list[str]:
    """The pieces of a lower-case WordPiece vocabulary learned from captions.

    Special pieces come first, then letters, then what byte-pair encoding joins: the most frequent
    neighbours inside words, of equally frequent ones the first in alphabetical order. So the same
    captions give the same pieces.

    Args:
        size: how many pieces at most; at least the special ones and the letters.

    Raises:
        ValueError: no captions, or too small a size.
    """
    rules = _bert(unknown=SPECIAL[1], pieces={piece: i for i, piece in enumerate(SPECIAL)})
    count: Counter[str] = Counter()
    for caption in captions:
        normal = rules.normalizer.normalize_str(caption)
        count.update(word for word, _ in rules.pre_tokenizer.pre_tokenize_str(normal))
    spelled = {word: [word[0], *(f"{_INSIDE}{letter}" for letter in word[1:])] for word in count}
    letters = sorted({piece for pieces in spelled.values() for piece in pieces})
    if not letters:
        raise ValueError("no captions to learn a vocabulary from: give at least one with a word")
    if len(letters) + len(SPECIAL) > size:
        raise ValueError(
            f"a vocabulary of {size} pieces has no room for the {len(letters)} letters of these "
            f"captions and {len(SPECIAL)} special pieces: ask for more"
        )
    pieces = [*SPECIAL, *letters]
    known = set(pieces)
    pair_count: Counter[tuple[str, str]] = Counter()
    words_with: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, parts in spelled.items():
        for pair in pairwise(parts):
            pair_count[pair] += count[word]
            words_with[pair].add(word)
    while len(pieces) < size and pair_count:
        pair = min(pair_count, key=lambda each: (-pair_count[each], each))
        joined = pair[0] + pair[1].removeprefix(_INSIDE)
        for word in sorted(words_with.pop(pair)):
            for old in pairwise(spelled[word]):
                pair_count[old] -= count[word]
            spelled[word] = _join(spelled[word], pair, joined)
            for new in pairwise(spelled[word]):
                pair_count[new] += count[word]
                words_with[new].add(word)
        # Whoever has none left; also the pair itself.
        pair_count = Counter({each: left for each, left in pair_count.items() if left > 0})
        if joined not in known:
            known.add(joined)
            pieces.append(joined)
    return pieces


def _join(parts: list[str], pair: tuple[str, str], joined: str) -> list[str]:
    result: list[str] = []
    for part in parts:
        if result and (result[-1], part) == pair:
            result[-1] = joined
        else:
            result.append(part)
    return result


def write_vocabulary(pieces: Iterable[str], path: Path) -> None:
    """Write a ``vocab.txt``, one piece per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")


def _file_in(path: Path) -> Path:
    if path.is_file():
        return path
    for name in (_JSON, _TEXT):
        if (path / name).is_file():
            return path / name
    raise VocabularyError(
        f"no vocabulary at {path}: give a {_JSON}, a {_TEXT}, or a folder with one of them in the "
        f"task option vocabulary"
    )


def _from_json(path: Path) -> Tokenizer:
    tokenizers = _library()
    try:
        tokenizer: Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise VocabularyError(f"vocabulary {path} cannot be read: {error}") from error
    return tokenizer


def _from_text(path: Path, *, folder: Path) -> Tokenizer:
    try:
        pieces = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"vocabulary {path} cannot be read: {error}") from error
    numbered = {piece: token for token, piece in enumerate(pieces)}
    if len(numbered) < len(pieces):
        twice = next(piece for token, piece in enumerate(pieces) if numbered[piece] != token)
        raise VocabularyError(f"vocabulary {path} lists '{twice}' twice: list every piece once")
    if SPECIAL[1] not in numbered:
        raise VocabularyError(
            f"vocabulary {path} has no '{SPECIAL[1]}' for words that it cannot spell: take a "
            f"WordPiece vocabulary, such as BERT's"
        )
    return _bert(unknown=SPECIAL[1], pieces=numbered, is_lower_case=_is_lower_case(folder))


def _is_lower_case(folder: Path) -> bool:
    """What a model's own settings say; lower case where there are none."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return True
    return bool(json.loads(settings.read_text(encoding="utf-8")).get("do_lower_case", True))


def _bert(*, unknown: str, pieces: dict[str, int], is_lower_case: bool = True) -> Tokenizer:
    """BERT's tokenizer: clean up, lower case, split at punctuation, longest pieces first."""
    tokenizers = _library()
    tokenizer: Tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(pieces, unk_token=unknown)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=is_lower_case)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix=_INSIDE)
    tokenizer.add_special_tokens([piece for piece in SPECIAL if piece in pieces])
    return tokenizer


def _library() -> Any:
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "captions need the tokenizers library: pip install 'rewardtune[captioning]'"
        ) from error
    return tokenizers
