"""What a digit scene shows, in words: a small grammar of counts, colours, names and relations.

Axes: N objects of a scene, M pixels of an object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.digits.scenes import DIGIT_NAMES, TEXTURES, Scene

NUM_CAPTIONS = 5
COLOURS = ("red", "yellow", "green", "turquoise", "blue", "violet", "white")
"""By hue, a sixth of the circle each, from red on; white is what has no hue."""
NUMBERS = ("no", *DIGIT_NAMES[1:])
BACKGROUNDS = {"plain": "a plain wall", "stripes": "stripes", "checks": "checks", "noise": "noise"}
OPENINGS = ("", "a picture of ", "we see ", "there are ")

_WHITE_BELOW = 0.1
"""Saturation, from which on a tint has a name."""


def describe(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five true sentences about a scene, all different.

    All name its digits, as people do who look at the same picture, and each goes on in its own
    way. ``rng`` chooses words and what to compare.
    """
    colours = [
        colour_name(scene.image_HWC[mask_HW]) if mask_HW.any() else COLOURS[-1]
        for mask_HW in scene.masks_NHW
    ]
    centre_N2 = np.array([_centre(mask_HW) for mask_HW in scene.masks_NHW]).reshape(-1, 2)
    named = [
        f"{colour} {DIGIT_NAMES[label]}"
        for colour, label in zip(colours, scene.labels_N.tolist(), strict=True)
    ]
    digits = _grouped([named[n] for n in np.argsort(centre_N2[:, 1], kind="stable")])
    return [
        f"{_choose(OPENINGS, rng)}{digits}",
        f"{digits} in front of {_background(scene)}",
        f"{_how_many(len(named))}, {digits}" if named else "an empty picture",
        _relation(centre_N2, named, rng) or f"{digits} and nothing else",
        _extreme(scene, centre_N2, digits, colours, rng) or f"{digits} alone",
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


def _grouped(nouns: Sequence[str]) -> str:
    """``two red sevens and a white three``, in the order in which each comes first."""
    count = Counter(nouns)
    return _listed([_counted(noun, count[noun]) for noun in count])


def _how_many(count: int) -> str:
    return "a single digit" if count == 1 else _counted("digit", count)


def _background(scene: Scene) -> str:
    """``stripes and a plain wall``: the textures that digits leave visible."""
    visible = np.unique(scene.texture_HW[~scene.masks_NHW.any(axis=0)])
    return _listed([BACKGROUNDS[TEXTURES[texture]] for texture in visible])


def _relation(
    centre_N2: NDArray[np.float64], named: Sequence[str], rng: np.random.Generator
) -> str | None:
    """How two digits lie to each other, along the axis on which they are further apart."""
    if len(named) < 2:
        return None
    first, second = rng.choice(len(named), size=2, replace=False)
    down, right = centre_N2[first] - centre_N2[second]
    if abs(right) >= abs(down):
        where = "to the right of" if right > 0 else "to the left of"
    else:
        where = "below" if down > 0 else "above"
    return f"{_counted(named[first], 1)} {where} {_counted(named[second], 1)}"


def _extreme(
    scene: Scene,
    centre_N2: NDArray[np.float64],
    digits: str,
    colours: Sequence[str],
    rng: np.random.Generator,
) -> str | None:
    """What colour the digit has that shows most, or lies furthest to one side."""
    if len(colours) < 2:
        return None
    superlatives = {
        "highest": -centre_N2[:, 0],
        "lowest": centre_N2[:, 0],
        "leftmost": -centre_N2[:, 1],
        "rightmost": centre_N2[:, 1],
        "largest": scene.masks_NHW.sum(axis=(1, 2)),
    }
    superlative = _choose(tuple(superlatives), rng)
    colour = colours[int(np.argmax(superlatives[superlative]))]
    return f"{digits}, the {superlative} of them {colour}"


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
