"""The colourfulness reward of whole batches beside scikit-image: one thread each.

Processor time, because the machine is shared. Pictures of 512 x 512: real photographs of the
shared data, scaled, or made ones where those are not there.

Axes: N pictures, H height, W width, 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.figure import Figure, figure
from bench.processor_time import processor_timed
from bench.timing import interleaved
from rewardtune.datasets.images import decode_image
from rewardtune.tasks.colorization.colour_table import colour_table
from rewardtune.tasks.colorization.kernel import colour_rewards, warm_up

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "coco_tiny" / "images"
SIZE = 512
NUM_PEER = 2
"""Pictures that the peer scores in a round; it takes 25 ms for one."""


def colour(*, is_quick: bool) -> Iterator[Figure]:
    """Pictures per second: uint8, floats as a decoder returns them, and noise; the table's cost.

    Raises:
        AssertionError: the peer's rewards are not ours.
    """
    num = 8 if is_quick else 20
    yield from colour_figures(
        _photographs(num) or made_pictures(num), num_rounds=3 if is_quick else 9
    )


def colour_figures(images: list[NDArray[np.uint8]], *, num_rounds: int) -> Iterator[Figure]:
    """The figures of pictures of one size.

    The floor is one pass over the bytes. Noise has a colour of its own in every pixel, which is
    the worst case for a table.
    """
    images_NHW3 = np.stack(images)
    floats_NHW3 = images_NHW3.astype(np.float32) / np.float32(127.5) - np.float32(1)
    rng = np.random.default_rng(0)
    noise_NHW3 = rng.integers(0, 256, images_NHW3.shape, dtype=np.uint8)
    warm_up()
    ways: dict[str, Callable[[], object]] = {
        "uint8": lambda: colour_rewards(images_NHW3).reward_N,
        "float32": lambda: colour_rewards(floats_NHW3).reward_N,
        "noise": lambda: colour_rewards(noise_NHW3).reward_N,
        "floor": lambda: images_NHW3.reshape(-1).view(np.uint64).sum(),
        "table": _table_anew,
    }
    peer = _scikit_image()
    if peer is not None:
        peer_rewards = peer
        num_compared = min(NUM_PEER, len(images))
        expected = [peer_rewards(image) for image in images]
        difference = np.abs(colour_rewards(images_NHW3).reward_N - expected).max()
        assert difference < 1e-12, f"scikit-image's rewards differ by {difference}"
        ways["peer"] = lambda: [peer_rewards(image) for image in images[:num_compared]]
    opencv = _opencv()
    if opencv is not None:
        ways["opencv"] = lambda: [opencv(image) for image in images]
    seconds = interleaved(
        {name: processor_timed(way) for name, way in ways.items()}, num_rounds=num_rounds
    )
    yield figure(
        "reward.colour",
        seconds["uint8"],
        amount=len(images),
        unit="images/s",
        peer=None if peer is None else "scikit-image rgb2lab and numpy",
        peer_seconds=None if peer is None else seconds["peer"] * len(images) / num_compared,
        floor_seconds=seconds["floor"],
    )
    if opencv is not None:
        yield figure(
            "reward.colour.opencv",
            seconds["uint8"],
            amount=len(images),
            unit="images/s",
            peer="OpenCV float32 and numpy, which is inexact",
            peer_seconds=seconds["opencv"],
        )
    for name in ("float32", "noise"):
        yield figure(f"reward.colour.{name}", seconds[name], amount=len(images), unit="images/s")
    yield figure("reward.colour.table", seconds["table"])


def made_pictures(num: int, *, size: int = SIZE) -> list[NDArray[np.uint8]]:
    """Soft gradients between a few colours, slightly noisy: photographs' kind of repetition."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(num):
        corners = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(corners.resize((size, size), Image.Resampling.BICUBIC), np.float64)
        noisy = smooth + rng.normal(size=smooth.shape) * 2
        pictures.append(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
    return pictures


def _photographs(num: int) -> list[NDArray[np.uint8]]:
    paths = sorted(SHARED.glob("*.jpg"))[:num]
    return [
        np.asarray(
            Image.fromarray(decode_image(path.read_bytes())).resize(
                (SIZE, SIZE), Image.Resampling.BICUBIC
            )
        )
        for path in paths
    ]


def _table_anew() -> object:
    colour_table.cache_clear()
    return colour_table(vivid_rule="chroma", hue_range="full")


def _scikit_image() -> Callable[[NDArray[np.uint8]], float] | None:
    """The reward as one writes it down with scikit-image; None where it is not installed."""
    try:
        from skimage.color import rgb2lab
    except ModuleNotFoundError:
        return None

    return lambda image_HW3: _reward_of_lab(rgb2lab(image_HW3))


def _opencv() -> Callable[[NDArray[np.uint8]], float] | None:
    """The same with OpenCV's conversion, on one thread; None where it is not installed."""
    try:
        import cv2
    except ModuleNotFoundError:
        return None
    cv2.setNumThreads(1)

    def reward(image_HW3: NDArray[np.uint8]) -> float:
        levels_HW3 = image_HW3.astype(np.float32) / np.float32(255)
        return _reward_of_lab(np.asarray(cv2.cvtColor(levels_HW3, cv2.COLOR_RGB2LAB)))

    return reward


def _reward_of_lab(lab_HW3: NDArray[np.floating[Any]]) -> float:
    a, b = lab_HW3[..., 1], lab_HW3[..., 2]
    vivid = float((a * a + b * b > 100).mean())
    hue_bin = np.minimum((np.arctan2(b, a) + np.pi) / (2 * np.pi) * 7, 6).astype(np.int64)
    share = np.bincount(hue_bin.ravel(), minlength=7) / hue_bin.size
    share = share[share > 0]
    return vivid * float(-(share * np.log(share)).sum())
