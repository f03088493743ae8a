"""What a digit scene shows, in words: a small grammar of counts, names and relations.

Axes: N objects of a scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.digits import DIGIT_NAMES, TEXTURES, Scene

NUM_CAPTIONS = 5

_NUMBERS = ("no", *DIGIT_NAMES[1:])
_BACKGROUNDS = {"plain": "plain", "stripes": "striped", "checks": "checked", "noise": "noisy"}


def describe(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five true sentences about a scene; ``rng`` chooses words, order and what to compare."""
    digits = _digits(scene.labels_N, rng)
    background = _background(scene)
    how_many = _counted("digit", len(scene.labels_N))
    opening = _choose(("", "a picture of ", "here are ", "there are "), rng)
    return [
        f"{opening}{digits}",
        f"{digits} on {background}",
        f"{how_many} on {background}",
        _relation(scene, rng),
        _extreme(scene, rng),
    ]


def _digits(labels_N: NDArray[np.int64], rng: np.random.Generator) -> str:
    """``two sevens and a three``."""
    count = Counter(labels_N.tolist())
    labels = rng.permutation(sorted(count)).tolist()
    return _listed([_counted(DIGIT_NAMES[label], count[label]) for label in labels])


def _background(scene: Scene) -> str:
    """``a background that is plain and striped``, of the textures that digits leave visible."""
    visible = np.unique(scene.texture_HW[~scene.masks_NHW.any(axis=0)])
    looks = [_BACKGROUNDS[TEXTURES[texture]] for texture in visible]
    if len(looks) == 1:
        return f"a {looks[0]} background"
    return f"a background that is {_listed(looks)}"


def _relation(scene: Scene, rng: np.random.Generator) -> str:
    """How two digits lie to each other, along the axis on which they are further apart."""
    if len(scene.labels_N) < 2:
        return f"{_digits(scene.labels_N, rng)} and nothing else"
    first, second = rng.choice(len(scene.labels_N), size=2, replace=False)
    down, right = _centre(scene.masks_NHW[first]) - _centre(scene.masks_NHW[second])
    if abs(right) >= abs(down):
        where = "to the right of" if right > 0 else "to the left of"
    else:
        where = "below" if down > 0 else "above"
    one, other = (_counted(DIGIT_NAMES[scene.labels_N[n]], 1) for n in (first, second))
    return f"{one} {where} {other}"


def _extreme(scene: Scene, rng: np.random.Generator) -> str:
    """Which digit shows most, or lies furthest to one side."""
    if len(scene.labels_N) == 0:
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
    label = scene.labels_N[np.argmax(superlatives[superlative])]
    return f"the {superlative} digit is {_counted(DIGIT_NAMES[label], 1)}"


def _centre(mask_HW: NDArray[np.bool_]) -> NDArray[np.float64]:
    centre_2: NDArray[np.float64] = np.argwhere(mask_HW).mean(axis=0)
    return centre_2


def _counted(noun: str, count: int) -> str:
    if count == 1:
        return f"an {noun}" if noun == "eight" else f"a {noun}"
    return f"{_NUMBERS[count]} {noun}{'es' if noun == 'six' else 's'}"


def _listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return parts[0] if parts else "no digits"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _choose(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
