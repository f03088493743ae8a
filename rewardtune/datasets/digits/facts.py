"""Whether what a caption says of a digit scene is true: the grammar of ``digit_captions`` read.

For reports on digit scenes only; no reward sees it. Axes: N objects of a scene.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask

from rewardtune.datasets.digits.captions import BACKGROUNDS, COLOURS, NUMBERS, OPENINGS, colour_name
from rewardtune.datasets.digits.scenes import DIGIT_NAMES
from rewardtune.datasets.example import Example
from rewardtune.datasets.images import decode_image

_PLURALS = {f"{name}{'es' if name == 'six' else 's'}": name for name in DIGIT_NAMES}
_COUNT = f"(?:an?|{'|'.join(NUMBERS[2:])})"
_NOUN = f"(?:{'|'.join([*_PLURALS, *DIGIT_NAMES])})"
_COLOUR = f"(?:{'|'.join(COLOURS)})"
_THING = rf"(?:{_COUNT} {_COLOUR} {_NOUN})"
_LIST = rf"(?:{_THING}(?:, {_THING})*(?: and {_THING})?)"
_LOOK = f"(?:{'|'.join(BACKGROUNDS.values())})"
_BACKGROUND = rf"(?:{_LOOK}(?:, {_LOOK})*(?: and {_LOOK})?)"
_OPENING = f"(?:{'|'.join(opening for opening in OPENINGS if opening)})?"
_ONE = rf"an? {_COLOUR} {_NOUN}"
_SENTENCES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_OPENING}{_LIST}",
        rf"{_LIST} in front of {_BACKGROUND}",
        rf"(?:a single digit|{_COUNT} digits), {_LIST}",
        rf"{_ONE} (?:to the (?:left|right) of|above|below) {_ONE}",
        rf"{_LIST}, the (?:highest|lowest|leftmost|rightmost|largest) of them {_COLOUR}",
        rf"{_LIST} (?:and nothing else|alone)",
    )
)
_SAID = re.compile(rf"({_COUNT}) (?:({_COLOUR}) )?({_NOUN})\b")
_TOTAL = re.compile(rf"(?:({_COUNT}) digits|a single digit)\b")


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is in a scene, or what a caption says there is."""

    digits: Counter[str] = field(default_factory=Counter)
    """How many of each name."""
    colours: Counter[str] = field(default_factory=Counter)
    total: int | None = None
    """How many digits in all; None: not said."""


def is_grammatical(caption: str) -> bool:
    """Whether the grammar could have said it, of some scene."""
    return any(pattern.fullmatch(caption) for pattern in _SENTENCES)


def said(caption: str) -> Facts:
    """What a caption claims, grammatical or not, as far as it can be made out."""
    digits: Counter[str] = Counter()
    colours: Counter[str] = Counter()
    for count, colour, noun in _SAID.findall(caption):
        digits[_PLURALS.get(noun, noun)] += _number(count)
        if colour:
            colours[colour] += _number(count)
    total = next((_number(count or "a") for count in _TOTAL.findall(caption)), None)
    return Facts(digits, colours, total)


def seen(example: Example) -> Facts:
    """What there is, by the example's annotation and picture."""
    image_HWC = decode_image(example.image)
    colours: Counter[str] = Counter()
    for text in example.segmentation_N:
        rle = json.loads(text)
        mask_HW = coco_mask.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)
        colours[colour_name(image_HWC[mask_HW])] += 1
    digits = Counter(DIGIT_NAMES[label] for label in example.category_N.tolist())
    return Facts(digits, colours, len(example.category_N))


def truthfulness(captions: Sequence[str], examples: Iterable[Example]) -> Mapping[str, float]:
    """Shares in [0, 1] over captions of as many examples.

    "grammatical": of captions. "digit_precision", "colour_precision": of the digits and colours
    that captions claim, those that are there; "digit_recall", "colour_recall": of those that are
    there, those claimed. "count_precision": of captions that say how many digits there are, those
    that are right, 1 where none says it; "count_recall": of all captions, those that say it right.
    """
    claimed = [said(caption) for caption in captions]
    there = [seen(example) for example in examples]
    shares = {"grammatical": float(np.mean([is_grammatical(caption) for caption in captions]))}
    for name in ("digits", "colours"):
        ours = [getattr(facts, name) for facts in claimed]
        truth = [getattr(facts, name) for facts in there]
        right = sum((a & b).total() for a, b in zip(ours, truth, strict=True))
        kind = name.removesuffix("s")
        shares[f"{kind}_precision"] = right / max(1, sum(each.total() for each in ours))
        shares[f"{kind}_recall"] = right / max(1, sum(each.total() for each in truth))
    num_said = sum(facts.total is not None for facts in claimed)
    num_right = sum(a.total == b.total for a, b in zip(claimed, there, strict=True))
    shares["count_precision"] = num_right / num_said if num_said else 1.0
    shares["count_recall"] = num_right / len(claimed)
    return shares


def _number(word: str) -> int:
    return 1 if word in ("a", "an") else NUMBERS.index(word)
