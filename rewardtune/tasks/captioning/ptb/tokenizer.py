"""The words of a caption as the Penn-Treebank tokenizer of coco-caption makes them, without a JVM.

The official scores are computed on what Stanford's PTBTokenizer (CoreNLP 3.4.1, options
-preserveLines -lowerCase) makes of each caption, less a list of punctuation. This is a tokenizer of
its own that gives the same words.

Domain: any text of one caption. English words, contractions, abbreviations, numbers, fractions,
telephone numbers, currencies, brackets, quotes, faces, tags, entities, addresses, and every
character of the Basic Multilingual Plane by itself come out as they do officially. Of strings made
at random of such things some three in a thousand differ (soft hyphens, rare entities, addresses
with odd characters). Meant to differ:

- Line breaks of any kind inside a caption are blanks. Officially only the newline is; carriage
  return, vertical tab, form feed, U+2028 and U+2029 shift the words of all captions that follow.
- A caption reads the same wherever it stands. Officially the last one of a call can lose an
  apostrophe ("who're" gives "who re"), and whether the full stop behind a last single letter or
  behind "no" is kept depends on the next caption: here the letter keeps it, "no" does not.

How it works: at each place all rules are tried and the longest match wins, the first on ties. Most
words need no rule: letters with blanks around them are recognised at once.
"""

from __future__ import annotations

import re

from rewardtune.tasks.captioning.ptb.rules import (
    ABBREVIATIONS,
    ADDRESS,
    ASSIMILATED,
    NO_ADDRESS,
    RULES,
)

DROPPED = frozenset(["", "'", "''", "`", "``", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""Tokens that coco-caption leaves out. Its list has brackets too, but in capitals, and tokens are
lower case when it is applied: brackets stay."""

# Line breaks, and the quotes and the euro of Windows' code page.
_CLEANED = str.maketrans(
    {
        **dict.fromkeys("\t\n\r\v\f\u2028\u2029", " "),
        "\x80": "\u20ac",
        "\x91": "\u2018",
        "\x92": "\u2019",
        "\x93": "\u201c",
        "\x94": "\u201d",
    }
)
_ENTITIES = {
    "&apos;": "'",
    "&quot;": '"',
    "&nbsp;": "\xa0",
    "&mdash;": "\u2014",
    "&ndash;": "\u2013",
}
_ENTITY = re.compile("|".join(_ENTITIES))
# With a letter behind it this one splits words as a curly apostrophe does.
_APOSTROPHE = re.compile("&apos;(?=[A-Za-z])")
# Of a row of them the first alone is looked at: a caption may be nothing else.
_SOFT_HYPHEN = re.compile(r"(?<!\xad)(?:(?<=\w)\xad+|\xad+(?=\w))")
# What most captions are made of: letters, hyphens, 's, perhaps a full stop or comma, then a blank.
_PLAIN = re.compile(r" *([A-Za-z]+(?:-[A-Za-z]+)*)('[sS])?([.,]?)(?= (?!\.))")
_RULES_FOR = {kind: tuple(rule for rule in RULES if kind in rule.starts) for kind in "a0."}


def ptb_tokens(caption: str) -> list[str]:
    """The tokens of one caption, lower case and without punctuation.

    A few tokens hold no-break spaces: fractions as in "3 1/2", telephone numbers, tags.
    """
    text = _cleaned(caption)
    rules = _Rules(text)
    tokens: list[str] = []
    at, end = 0, len(text) - 1
    while at < end:
        plain = _PLAIN.match(text, at)
        if plain is not None:
            word, possessive, stop = plain.groups()
            word = word.lower()
            is_regular = word not in ASSIMILATED and word not in ABBREVIATIONS
            if is_regular or (word not in ASSIMILATED and (possessive or stop != ".")):
                tokens.append(word)
                if possessive:
                    tokens.append("'s")
                at = plain.end()
                continue
        token, at = rules.next_token(at)
        if token not in DROPPED:
            tokens.append(token)
    return tokens


def ptb_words(caption: str) -> list[str]:
    """What CIDEr and BLEU count as words: the tokens, split again at no-break spaces."""
    return " ".join(ptb_tokens(caption)).split()


def _cleaned(caption: str) -> str:
    """The caption less what the rules need not know, and with a blank and a newline behind it."""
    text = caption.translate(_CLEANED)
    if "&" in text:
        text = _APOSTROPHE.sub("\u2019", text)
        text = _ENTITY.sub(lambda match: _ENTITIES[match[0]], text)
    if "\xad" in text:
        text = _SOFT_HYPHEN.sub("", text)
    return text + " \n"


def _kind(first: str) -> str:
    """By which rules say what they can start with."""
    if first.isascii() and first.isalpha():
        return "a"
    return "0" if first.isascii() and first.isdigit() else "."


class _Rules:
    """The rules on one text, from its start to its end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._address_from = 0
        """No address starts before. Its names may be of any characters: looked for at each place,
        it would take the square of a text's length."""

    def next_token(self, at: int) -> tuple[str, int]:
        """The token that starts at a place, "" if none does, and where the next may.

        Places come in their order.
        """
        text, first = self._text, self._text[at]
        if first == " ":
            return "", at + 1
        best, token_end, match_end = None, at + 1, at
        for rule in _RULES_FOR[_kind(first)]:
            match = self._address(at) if rule is ADDRESS else rule.pattern.match(text, at)
            if match is not None and match.end() > match_end:
                best, match_end = rule, match.end()
                token_end = match.end(match.lastindex or 0)
        if best is None:
            return "", at + 1
        token = text[at:token_end]
        return (best.rewrite(token) if best.rewrite else token).lower(), token_end

    def _address(self, at: int) -> re.Match[str] | None:
        if at < self._address_from:
            return None
        match = ADDRESS.pattern.match(self._text, at)
        nowhere = NO_ADDRESS.match(self._text, at) if match is None else None
        if nowhere is not None:
            self._address_from = nowhere.end()
        return match
