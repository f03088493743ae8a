"""One made picture with everything annotated, and the files that tasks read, at any size.

Axes: H height, W width, 3 colours; in captions C captions, W words.
"""

from __future__ import annotations

import io
import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bench.networks.scenes import made_example
from bench.uvim.decode import NUM_IDS, random_stage_one
from rewardtune.datasets.example import Category, Example, Segment
from rewardtune.datasets.shards.writer import ShardWriter
from rewardtune.tasks.captioning.cider.frequency_builder import build_document_frequencies
from rewardtune.tasks.captioning.vocabulary import SPECIAL
from rewardtune.tasks.panoptic.files import png_of_ids
from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.stage_one_file import save_stage_one

_SIDE = 640
_NUM_OBJECTS = 7
"""Boxes on a picture of COCO, on average."""
_CAPTIONS_PER_IMAGE = 5
WORDS_PER_CAPTION = 12
"""Of COCO, nearly."""
_NUM_WORDS_USED = 800
"""By all captions. One image uses few of them: words of every image would be worth nothing."""
_NUM_IMAGES_COUNTED = 1000


def write_data(directory: Path, *, num_things: int, num_stuff: int, num_words: int) -> None:
    """A data set of one picture.

    Args:
        num_words: of each of its captions. Rollouts of random weights hardly ever end, and CIDEr-D
            gives nothing for a caption that is much longer than all others.
    """
    categories = [
        Category(id=i + 1, name=f"class {i}", is_thing=i < num_things)
        for i in range(num_things + num_stuff)
    ]
    with ShardWriter(directory, categories=categories, source="made by bench.full_size") as writer:
        writer.add(_annotated(num_things, len(categories), num_words=num_words))


def write_vocabulary(path: Path, *, size: int) -> None:
    """BERT's special pieces, where it has them, and words."""
    padding, *others = SPECIAL
    unused = [f"[unused{i}]" for i in range(min(99, size // 4))]
    pieces = [padding, *unused, *others]
    pieces += itertools.islice(_words(), size - len(pieces))
    path.write_text("".join(f"{piece}\n" for piece in pieces))


def write_document_frequencies(path: Path) -> None:
    """Of captions that a thousand pictures might have, by the product's own counting."""
    build_document_frequencies(
        (
            (image, caption)
            for image in range(_NUM_IMAGES_COUNTED)
            for caption in _captions(seed=image)
        ),
        path,
    )


def write_stage_one(path: Path, sizes: StageOneConfig) -> None:
    save_stage_one(
        path,
        random_stage_one(sizes),
        class_names=None,
        provenance={"made by": "bench.full_size"},
    )


def _words() -> Iterator[str]:
    """Words of letters, without end: aa, ab, ..."""
    for length in itertools.count(2):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


def _captions(*, seed: int, num_words: int = WORDS_PER_CAPTION) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    known = list(itertools.islice(_words(), _NUM_WORDS_USED))
    return tuple(
        " ".join(rng.choice(known, size=num_words, replace=False))
        for _ in range(_CAPTIONS_PER_IMAGE)
    )


def _annotated(num_things: int, num_classes: int, *, num_words: int) -> Example:
    boxes = made_example(size=_SIDE, num_classes=num_things, num_objects=_NUM_OBJECTS, seed=0)
    rng = np.random.default_rng(0)
    coarse_HW3 = rng.integers(256, size=(20, 20, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse_HW3).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    # Bands of classes that differ, as far as there are so many.
    id_HW = np.repeat(np.arange(_SIDE) * NUM_IDS // _SIDE + 1, _SIDE).reshape(_SIDE, _SIDE)
    return replace(
        boxes,
        image=stream.getvalue(),
        panoptic_png=png_of_ids(id_HW),
        segments=_segments(np.bincount(id_HW.ravel()).tolist()[1:], num_classes=num_classes),
        captions=_captions(seed=0, num_words=num_words),
    )


def _segments(areas: Sequence[int], *, num_classes: int) -> tuple[Segment, ...]:
    return tuple(
        Segment(id=i + 1, category=i * num_classes // len(areas), area=area, is_crowd=False)
        for i, area in enumerate(areas)
    )
