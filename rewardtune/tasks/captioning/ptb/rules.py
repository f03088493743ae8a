"""The rules of the tokenizer in ``ptb.py``: what a token can look like, and how it is then written.

Written from the behaviour observed of the official tokenizer, not from its source. A rule's token
is its group 1, if it has one, else all that it matches; the whole match is what competes with other
rules, so a rule that wants to see what follows is longer by that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rewardtune.tasks.captioning.ptb.characters import DIGITS, LETTERS, MARKS, SYMBOLS

ASSIMILATED = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}
"""Two words written as one, and where they part."""

_L = rf"(?:[A-Za-z{LETTERS}{MARKS}]|&[aeiouAEIOU](?:acute|grave|uml);)"
_D = rf"[0-9{DIGITS}]"
_AN = rf"[A-Za-z0-9{LETTERS}{DIGITS}]"
_AP = "['\u2019]"
_QUOTE = "['`\u2018\u2019\u201b]"
_HYPHEN = "[-_\u058a\u2010\u2011]"
_WORD = rf"{_L}(?:{_L}|{_D})*(?:[.!?]{_L}(?:{_L}|{_D})*)*"
_NUMBER = rf"(?:{_D}*(?:[.:,\xad\u066b\u066c]{_D}+)+|{_D}+)"

_QUOTES = {
    "\u2018": "`",
    "\u2019": "'",
    "\u201b": "`",
    "\u201c": "``",
    "\u201d": "''",
    "\u2039": "`",
    "\u203a": "'",
    "\xab": "``",
    "\xbb": "''",
}
_FRACTIONS = {"¼": "1/4", "½": "1/2", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_ESCAPES = {"&amp;": "&", "&lt;": "<", "&gt;": ">"}
_FILE_KINDS = (
    "bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php "
    "pl png ppt ps py sql tar txt wav x xml zip"
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}


# Abbreviations, one word together with their full stop; by how they may be capitalised, and whether
# they can end a sentence (those win over a word with a dot in it, as in "etc.x").
_ENDING = (
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec "
    "esq est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn "
    "mo mon mont neb nev nov oct okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs "
    "tue tues univ va vt wed wis wisc wyo"
)
_ENDING_CAPITAL = "ark az del ill la mass miss ore pa tex wash"
_ENDING_SMALL = "ppte ppty pte ptes pty ptys"
_TITLES = (
    "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs "
    "elec ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt "
    "natl pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt supts treas vs "
    "wm"
)
_TITLES_SMALL = "mfg mtg"
# Before one of these a letter with a full stop ends a sentence, else it is an initial.
_STARTERS = (
    "a about according additionally after an as at but earlier he her here however if in it last "
    "many more now once one other our she since so some such that the their then there these they "
    "this we what when while yet you"
)
_NUMBERED = "no nos art fig figs pp op ca prop"
ABBREVIATIONS = frozenset(
    " ".join([_ENDING, _ENDING_CAPITAL, _ENDING_SMALL, _TITLES, _TITLES_SMALL, _NUMBERED]).split()
) | frozenset("abcdefghijklmnopqrstuvwxyz")
"""Whatever may keep a full stop, in lower case."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of token."""

    pattern: re.Pattern[str]
    rewrite: Callable[[str], str] | None
    """How the token is written, where not as it stands. All are lower case in the end."""
    starts: str
    """What its first character may be: "a" an English letter, "0" a digit, "." anything else."""


def _rule(
    pattern: str,
    rewrite: Callable[[str], str] | None = None,
    *,
    starts: str = ".",
    ignore_case: bool = False,
) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE if ignore_case else 0), rewrite, starts)


def _any_of(words: str) -> str:
    return "(?:" + "|".join(sorted(words.split(), key=len, reverse=True)) + ")"


def _capitalised(words: str) -> str:
    """The words, in capitals or with a capital first letter."""
    either = (f"{w[0].upper()}(?:{w[1:]}|{w[1:].upper()})" for w in words.split())
    return f"(?:{'|'.join(either)})"


def _uncapitalised(words: str) -> str:
    """The words, with or without a capital first letter."""
    return "(?:" + "|".join(f"[{w[0]}{w[0].upper()}]{w[1:]}" for w in words.split()) + ")"


def _with_hard_spaces(token: str) -> str:
    return token.replace(" ", "\xa0")


def _telephone(token: str) -> str:
    return _face(_with_hard_spaces(token))


def _face(token: str) -> str:
    return token.replace("(", "-lrb-").replace(")", "-rrb-")


def _straight(token: str) -> str:
    return re.sub("[\u2018\u201b]", "`", token.replace("\u2019", "'"))


_PATH = r"(?:/[^ \t\n\"<>|()]+[^ \t\n\"<>|.!?(){},-])?"
_CLITIC = "(?:s|d|m|re|ve|ll)"

_NAME = r"[^ \t\n\"`'<>|.!?(){},\-_$0-9A-Z/:;=@\[\\\]^]+"
ADDRESS = _rule(rf"(?:{_NAME}\.)+(?:com|net|org|edu){_PATH}", starts="a.")
NO_ADDRESS = re.compile(rf"(?:{_NAME}\.)*(?:{_NAME})?")
"""How far no address starts, from a place where none does: what follows is the same."""

RULES: tuple[Rule, ...] = (
    # Tags and addresses
    _rule(
        r"<(?:[!?][A-Za-z-][^>\n]*|/[A-Za-z][A-Za-z0-9:._-]* *|[A-Za-z][A-Za-z0-9:._-]*"
        r"(?: +[A-Za-z][A-Za-z0-9:._-]*(?: *= *(?:'[^'\n]*'|\"[^\"\n]*\"))?)* */?)>",
        _with_hard_spaces,
    ),
    _rule(r"https?://[^ \t\n\"<>|(){}]+[^ \t\n\"<>|.!?(){},-]", starts="a", ignore_case=True),
    _rule(
        rf"www\.(?:[^ \t\n\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}{_PATH}",
        starts="a",
        ignore_case=True,
    ),
    ADDRESS,
    _rule(r"<?[A-Za-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?", starts="a0."),
    _rule(r"@[A-Za-z_][A-Za-z0-9_]*"),
    _rule(rf"#{_L}+"),
    # Words with an apostrophe inside
    _rule(rf"[A-HJ-XZn]{_QUOTE}{_L}{{2,}}", starts="a"),
    _rule(rf"{_L}*{_L}[aeiouyAEIOUY]{_QUOTE}[aeiouA-Z]{_L}*", starts="a."),
    _rule(r"cont'd\.", starts="a", ignore_case=True),
    # Parts of contractions
    _rule(rf"([A-Za-z]*[A-MO-Za-mo-z])[nN]{_QUOTE}[tT]", starts="a"),
    _rule(rf"({_WORD}){_AP}{_CLITIC}[^A-Za-z]", starts="a.", ignore_case=True),
    _rule(rf"(n{_QUOTE}t)(?!{_L})[\s\S]", _straight, starts="a", ignore_case=True),
    _rule(rf"('{_CLITIC})[^A-Za-z]", ignore_case=True),
    _rule(f"\u2019{_CLITIC}", _straight, ignore_case=True),
    _rule(r"('t)(?:is|was)", ignore_case=True),
    *(
        _rule(
            rf"({word[:cut]}){word[cut:]}(?!{_AN}|{_AP}{_CLITIC})[\s\S]",
            starts="a",
            ignore_case=True,
        )
        for word, cut in ASSIMILATED.items()
    ),
    *(
        _rule(
            rf"({word[cut:]})(?!{_AN}|{_AP}{_CLITIC})[\s\S](?<={word}[\s\S])",
            starts="a",
            ignore_case=True,
        )
        for word, cut in ASSIMILATED.items()
    ),
    _rule(
        rf"{_AP}n{_AP}?|[ldj]{_AP}|ol{_AP}|(?:dunk|someth)in{_AP}|{_AP}(?:em|til|cause)|c'mon|"
        rf"s'mores|nor'easter|e'er|ev'ry|c'est|cap'n|li'l|nat'l|o'o",
        starts="a.",
        ignore_case=True,
    ),
    _rule(rf"(y{_AP})(?!{_CLITIC}){_L}", starts="a", ignore_case=True),
    _rule(r"(')[A-Za-z][^ \t\n\xa0]"),
    _rule(rf"{_AP}[0-9]0[sS]|({_AP}[0-9]{{2}})[ \t\n\xa0]"),
    # Abbreviations and words
    _rule(rf"{_any_of(_TITLES)}\.", starts="a", ignore_case=True),
    _rule(rf"{_uncapitalised(_TITLES_SMALL)}\.", starts="a"),
    _rule(rf"({_any_of(_NUMBERED)}\.)[ \xa0]?{_D}", starts="a", ignore_case=True),
    _rule(rf"([A-Za-z])\.[ \t\n\xa0]+{_capitalised(_STARTERS)}[ \t\n\xa0]", starts="a"),
    _rule(r"[A-Za-z](?:\.[A-Za-z])*\.", starts="a"),
    _rule(_WORD, starts="a."),
    _rule(rf"((?:{_any_of(_ENDING)}|ph\.d)\.).?.?", starts="a", ignore_case=True),
    _rule(
        rf"((?:{_capitalised(_ENDING_CAPITAL)}|{_uncapitalised(_ENDING_SMALL)})\.).?.?", starts="a"
    ),
    # Things with hyphens, slashes, dots
    _rule(
        rf"(?:[dDoOlL]{_QUOTE}{_AN})?{_AN}+(?:{_HYPHEN}(?:[dDoOlL]{_QUOTE}{_AN})?{_AN}+)*",
        starts="a0.",
    ),
    _rule(rf"((?:{_WORD}|{_AN}+(?:{_HYPHEN}{_AN}+)*)\.)[,;:\u3001]", starts="a0."),
    _rule(
        r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z](?:\.[A-Za-z])+\.|[A-Za-z0-9]+))+", starts="a0"
    ),
    _rule(
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}", starts="a0"
    ),
    _rule(
        rf"[A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*\.{_any_of(_FILE_KINDS)}(?=[ \t\n\xa0.,?!])",
        starts="a0",
        ignore_case=True,
    ),
    _rule(
        r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+", lambda token: token.replace("&amp;", "&"), starts="a"
    ),
    _rule(r"[Cc]\+\+|[CcFf]#", starts="a"),
    # Numbers
    _rule(rf"[-+]?{_NUMBER}", starts="0."),
    _rule(
        rf"(?:{_D}{{1,4}}[- \xa0])?{_D}{{1,4}}(?:\\?/|\u2044){_D}{{1,4}}",
        _with_hard_spaces,
        starts="0.",
    ),
    _rule(
        rf"(?:\({_D}{{2,3}}\)[ \xa0]?|\+{{0,2}}(?:{_D}{{2,4}}[- \xa0])?{_D}{{2,4}}[- \xa0])"
        rf"{_D}{{3,4}}[- \xa0]?{_D}{{3,5}}",
        _telephone,
        starts="0.",
    ),
    _rule(rf"\+{{0,2}}(?:{_D}{{2,4}}\.)?{_D}{{2,4}}\.{_D}{{3,4}}\.{_D}{{3,5}}", starts="0."),
    _rule(r"[A-Z]*\$", starts="a."),
    # Faces
    _rule(r"([<>]?[:;=]['\-o*]?[()DPdpO\\{@|\[\]])(?![A-Za-z0-9])[\s\S]", _face),
    _rule(r"[-^x=~<>']_[-^x=~<>']", starts="a."),
    _rule(r"\([-^x=~<>'][-_.]?[-^x=~<>']\)", _face),
    # Punctuation
    _rule("&(?:amp|lt|gt);", lambda token: _ESCAPES[token.lower()], ignore_case=True),
    _rule(r"&#[0-9]+;"),
    _rule(r"[!?]+|--?|\*+|_+|@+|##+|<<|>>|''|``|\\\*|-{5,}"),
    _rule("-{3,4}", lambda _: "--"),
    _rule(
        "[`\u2018-\u201f\u2039\u203a\xab\xbb]{1,2}",
        lambda token: "".join(_QUOTES.get(c, c) for c in token),
    ),
    _rule(r"\.{3,5}|\.(?:[ \xa0]\.){2,4}", lambda _: "..."),
    _rule(r"[\xb2\xb3\xb9\u2070\u2074-\u2079]+|[\u2080-\u2089]+"),
    _rule("¢", lambda _: "cents"),
    _rule("£", lambda _: "#"),
    _rule("[€\xa4\u20a0]", lambda _: "$"),
    _rule("[¼½¾⅓⅔]", lambda token: _FRACTIONS[token]),
    _rule(r"[()\[\]{}]", lambda token: _BRACKETS[token]),
    _rule(rf"[#%&*+/<=>@\\^_|~{SYMBOLS}]"),
)
