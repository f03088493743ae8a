"""Reading JSON files that are too large to hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from rewardtune.datasets.coco.broken import ConversionError

_READ_CHARS = 2**20


class JsonReader:
    """Walk a JSON object too large to hold: its keys, and the items of its arrays.

    Python's own decoder on a sliding window: as fast as ijson, but it also reads the NaN that
    Python writes (so that a broken box can be named) and hands out each item's text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open(encoding="utf-8-sig")
        self._text = ""
        self._at = 0
        self._num_dropped = 0
        self._decode = json.JSONDecoder().raw_decode

    def __enter__(self) -> JsonReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """The keys of the top-level object; read or ``skip`` each one's value in between."""
        self._expect("{")
        if self._next() == "}":
            return
        while True:
            key, _ = self._value()
            self._expect(":")
            yield str(key)
            if self._next() != ",":
                break
            self._at += 1
        self._expect("}")

    def items(self, key: str) -> Iterator[tuple[dict[str, Any], str]]:
        """The objects in the array that follows, each with its text."""
        if self._next() != "[":
            self._fail(f"'{key}' is not a list")
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        while True:
            value, text = self._value()
            if not isinstance(value, dict):
                self._fail(f"an item of '{key}' is not an object")
            yield value, text
            if self._next() != ",":
                break
            self._at += 1
        self._expect("]")

    def skip(self) -> None:
        self._value()

    def _value(self) -> tuple[Any, str]:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError:
                self._fail("it is nested too deeply")
            except json.JSONDecodeError as error:
                # Cut off by the window's end, or truly wrong? A token that is cut off starts
                # within a few characters of the end, except a string.
                place = self._num_dropped + error.pos
                is_cut = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated")
                if not (is_cut and self._more()):
                    self._fail(error.msg, place=place)
                continue
            # A number at the window's end may go on, also where it reads as "0" before ".", or as
            # "1" before "e-".
            length = end - self._at
            if end >= len(self._text) - 2 and self._more():
                continue
            text = self._text[self._at : self._at + length]
            self._at += length
            return value, text

    def _more(self) -> bool:
        # As much again as is waiting: an item of any length is decoded few times.
        try:
            chunk = self._file.read(max(_READ_CHARS, len(self._text) - self._at))
        except UnicodeDecodeError:
            self._fail("it is not text in UTF-8")
        self._num_dropped += self._at
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _next(self) -> str:
        """The next character that is not white space, not yet consumed; "" at the end."""
        while True:
            while self._at < len(self._text):
                char = self._text[self._at]
                if char not in " \t\r\n":
                    return char
                self._at += 1
            if not self._more():
                return ""

    def _expect(self, char: str) -> None:
        found = self._next()
        if found != char:
            self._fail(f"expected '{char}', found " + (f"'{found}'" if found else "the end"))
        self._at += 1

    def _fail(self, problem: str, *, place: int | None = None) -> NoReturn:
        place = self._num_dropped + self._at if place is None else place
        raise ConversionError(
            f"{self._path} cannot be read as COCO JSON: {problem} (character {place})"
        )
