"""What a picture's colours are like: the reward's factors, and measures that it does not see.

A policy can raise the reward with colours that suit nothing in the picture: uniform noise scores
1.80, above what the paper reaches. The other figures tell: noise has a high total variation, one
colour laid over everything a dominant hue, and a picture that strays from the original a low PSNR.

Axes: H height, W width, 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.images import BrokenImage, decode_image
from rewardtune.tasks.colorization.definition import HueRange, VividRule
from rewardtune.tasks.colorization.kernel import colour_rewards
from rewardtune.tasks.colorization.lab import check_pixels, srgb_to_lab
from rewardtune.tasks.colorization.tripwire_kernel import batch_tripwires

SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class ColourMetrics:
    """Figures of one picture."""

    reward: float
    """Vivid fraction times hue entropy."""
    vivid: float
    """Fraction of pixels whose chroma exceeds 10."""
    entropy: float
    """Of the hue over seven bins, in nats."""
    colourfulness: float
    dominant_hue_ratio: float
    """This and the next: see ``tripwire.ColourTripwires``."""
    chroma: float
    clipped_ratio: float
    total_variation_a: float
    total_variation_b: float


def colour_metrics(
    image_HW3: NDArray[np.uint8],
    *,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> ColourMetrics:
    """All figures that need no original.

    Raises:
        ValueError: not uint8 [H, W, 3], or no pixels.
    """
    rewards = colour_rewards(image_HW3[None], vivid_rule=vivid_rule, hue_range=hue_range)
    watched = batch_tripwires(image_HW3[None], vivid_rule=vivid_rule, hue_range=hue_range)
    return ColourMetrics(
        reward=float(rewards.reward_N[0]),
        vivid=float(rewards.vivid_N[0]),
        entropy=float(rewards.entropy_N[0]),
        colourfulness=hasler_colourfulness(image_HW3),
        **{name: float(value_N[0]) for name, value_N in watched.items()},
    )


def hasler_colourfulness(image: NDArray[np.uint8]) -> float:
    """Perceived colourfulness [..., 3]: 0 for grey, about 109 for "extremely colourful".

    Source: Hasler and Suesstrunk 2003, "Measuring colourfulness in natural images", M(3), with
    red - green and yellow - blue of sRGB levels 0 to 255.
    """
    check_pixels(image)
    red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    deviation = math.hypot(red_green.std(), yellow_blue.std())
    return deviation + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())


def psnr(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of the sRGB levels in decibels; infinite where they are equal."""
    _check_same_shape(image, original)
    return _decibels(image.astype(np.float64), original.astype(np.float64), peak=255.0)


def lightness_psnr(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """The same of CIELAB lightness alone: how well the grey picture that was given is kept."""
    _check_same_shape(image, original)
    return _decibels(srgb_to_lab(image)[..., 0], srgb_to_lab(original)[..., 0], peak=100.0)


def folder_colour_metrics(
    folder: Path,
    *,
    reference: Path | None = None,
    per_image: bool = False,
    vivid_rule: VividRule = "chroma",
    hue_range: HueRange = "full",
) -> dict[str, Any]:
    """Mean figures of the PNG and JPEG pictures of a folder (not of folders within it).

    Args:
        folder: the pictures to judge, in any sizes.
        reference: a folder with the originals, of the same names but for the suffix. Originals
            without a picture are left out.
        per_image: also "images": one dictionary per picture, with "file" and its figures.
        vivid_rule, hue_range: see ``definition.py``.

    Returns:
        "n" pictures and the mean over them of every figure of ``ColourMetrics``; with a reference
        also of "psnr" and "psnr_lightness", over the pictures that differ from their original at
        all (None if none does): "n_equal" and "n_equal_lightness" count the others.

    Raises:
        ValueError: no pictures, one that cannot be read, has no original, or another size than
            it; names the file.
        OSError: a folder cannot be read.
    """
    pictures = _pictures(folder)
    originals = {} if reference is None else {path.stem: path for path in _pictures(reference)}
    rows: list[dict[str, Any]] = []
    for path in pictures:
        image = _read(path)
        metrics = colour_metrics(image, vivid_rule=vivid_rule, hue_range=hue_range)
        row = {"file": path.name, **asdict(metrics)}
        if reference is not None:
            if path.stem not in originals:
                raise ValueError(
                    f"{path} has no original: expected {reference / path.stem}.png or .jpg"
                )
            original = _read(originals[path.stem])
            if original.shape != image.shape:
                raise ValueError(
                    f"{path} is {image.shape[1]} x {image.shape[0]} pixels but its original "
                    f"{originals[path.stem]} is {original.shape[1]} x {original.shape[0]}: scale "
                    "the originals first"
                )
            row["psnr"] = _finite(psnr(image, original))
            row["psnr_lightness"] = _finite(lightness_psnr(image, original))
        rows.append(row)
    return {"n": len(rows), **_means(rows)} | ({"images": rows} if per_image else {})


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for name in rows[0].keys() - {"file", "psnr", "psnr_lightness"}:
        means[name] = math.fsum(row[name] for row in rows) / len(rows)
    means = {name: means[name] for name in rows[0] if name in means}
    for name, equal in (("psnr", "n_equal"), ("psnr_lightness", "n_equal_lightness")):
        if name in rows[0]:
            values = [row[name] for row in rows if row[name] is not None]
            means[name] = math.fsum(values) / len(values) if values else None
            means[equal] = len(rows) - len(values)
    return means


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: name one with PNG or JPEG pictures")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"folder {folder} holds no pictures ({', '.join(SUFFIXES)})")
    for one, other in pairwise(found):
        if one.stem == other.stem:
            raise ValueError(f"{one} and {other} have the same name: which of them counts?")
    return found


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return decode_image(path.read_bytes())
    except BrokenImage as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from None


def _check_same_shape(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> None:
    check_pixels(image)
    check_pixels(original)
    if image.shape != original.shape:
        raise ValueError(
            f"picture and original must have one shape, got {list(image.shape)} and "
            f"{list(original.shape)}"
        )


def _decibels(value: NDArray[np.float64], original: NDArray[np.float64], *, peak: float) -> float:
    error = float(np.mean((value - original) ** 2))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def _finite(value: float) -> float | None:
    """None for infinity, which JSON cannot hold."""
    return value if math.isfinite(value) else None
