"""What a digit scene shows, in words: a small grammar of counts, colours, names and relations.

Axes: N objects of a scene, M pixels of an object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.digits import DIGIT_NAMES, TEXTURES, Scene

NUM_CAPTIONS = 5
COLOURS = ("pink", "yellow", "green", "turquoise", "blue", "violet", "white")
"""By hue, a sixth of the circle each, from red on; white is what has no hue."""
NUMBERS = ("no", *DIGIT_NAMES[1:])
BACKGROUNDS = {"plain": "plain", "stripes": "striped", "checks": "checked", "noise": "noisy"}
OPENINGS = ("", "a picture of ", "here are ", "there are ")

_WHITE_BELOW = 0.1
"""Saturation, from which on a tint has a name."""


def describe(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five true sentences about a scene, all different, each about something else.

    ``rng`` chooses words, order and what to compare.
    """
    colours = [
        colour_name(scene.image_HWC[mask_HW]) if mask_HW.any() else COLOURS[-1]
        for mask_HW in scene.masks_NHW
    ]
    labels = scene.labels_N.tolist()
    named = [f"{colour} {DIGIT_NAMES[n]}" for colour, n in zip(colours, labels, strict=True)]
    background = _background(scene)
    return [
        f"{_choose(OPENINGS, rng)}{_grouped(named, rng)}",
        f"{_grouped([DIGIT_NAMES[n] for n in labels], rng)} on {background}",
        f"{_how_many(colours, rng)} on {background}",
        _relation(scene, named, rng),
        _extreme(scene, named, rng),
    ]


def colour_name(rgb_M3: NDArray[np.uint8]) -> str:
    """What colour an object's visible pixels are, by the brighter half of them.

    The darker half is where strokes fade into what lies behind them.
    """
    brightness_M = rgb_M3.sum(axis=1)
    bright = rgb_M3[brightness_M >= np.median(brightness_M)]
    red, green, blue = bright.mean(axis=0).tolist()
    high, low = max(red, green, blue), min(red, green, blue)
    if high - low <= _WHITE_BELOW * high:
        return COLOURS[-1]
    if high == red:
        hue = (green - blue) / (high - low)
    elif high == green:
        hue = 2 + (blue - red) / (high - low)
    else:
        hue = 4 + (red - green) / (high - low)
    return COLOURS[round(hue) % 6]


def _grouped(nouns: Sequence[str], rng: np.random.Generator) -> str:
    """``two sevens and a three``, in any order."""
    count = Counter(nouns)
    order = rng.permutation(len(count))
    different = sorted(count)
    return _listed([_counted(different[n], count[different[n]]) for n in order])


def _how_many(colours: Sequence[str], rng: np.random.Generator) -> str:
    """``three digits, two of them green``."""
    if not colours:
        return "nothing"
    colour = _choose(sorted(set(colours)), rng)
    count = colours.count(colour)
    if len(colours) == 1:
        return f"a {colour} digit"
    share = "all" if count == len(colours) else _number(count)
    return f"{_counted('digit', len(colours))}, {share} of them {colour},"


def _background(scene: Scene) -> str:
    """``a background that is plain and striped``, of the textures that digits leave visible."""
    visible = np.unique(scene.texture_HW[~scene.masks_NHW.any(axis=0)])
    looks = [BACKGROUNDS[TEXTURES[texture]] for texture in visible]
    if len(looks) == 1:
        return f"a {looks[0]} background"
    return f"a background that is {_listed(looks)}"


def _relation(scene: Scene, named: Sequence[str], rng: np.random.Generator) -> str:
    """How two digits lie to each other, along the axis on which they are further apart."""
    if len(named) < 2:
        return f"{_grouped(named, rng)} and nothing else"
    first, second = rng.choice(len(named), size=2, replace=False)
    down, right = _centre(scene.masks_NHW[first]) - _centre(scene.masks_NHW[second])
    if abs(right) >= abs(down):
        where = "to the right of" if right > 0 else "to the left of"
    else:
        where = "below" if down > 0 else "above"
    one, other = (_counted(named[n], 1) for n in (first, second))
    return f"{one} {where} {other}"


def _extreme(scene: Scene, named: Sequence[str], rng: np.random.Generator) -> str:
    """Which digit shows most, or lies furthest to one side."""
    if not named:
        return "an empty picture"
    centre_N2 = np.array([_centre(mask_HW) for mask_HW in scene.masks_NHW])
    superlatives = {
        "highest": -centre_N2[:, 0],
        "lowest": centre_N2[:, 0],
        "leftmost": -centre_N2[:, 1],
        "rightmost": centre_N2[:, 1],
        "largest": scene.masks_NHW.sum(axis=(1, 2)),
    }
    superlative = _choose(tuple(superlatives), rng)
    found = named[int(np.argmax(superlatives[superlative]))]
    return f"the {superlative} digit is {_counted(found, 1)}"


def _centre(mask_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    centre_2: NDArray[np.float64] = np.argwhere(mask_HW).mean(axis=0)
    return centre_2


def _counted(noun: str, count: int) -> str:
    if count == 1:
        return f"an {noun}" if noun == "eight" else f"a {noun}"
    return f"{_number(count)} {noun}{'es' if noun.endswith('six') else 's'}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return parts[0] if parts else "no digits"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
