"""Small stage-I networks with random weights, and examples for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from rewardtune.datasets.example import Category, Example, Segment
from rewardtune.tasks.panoptic.files import png_of_ids
from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.patches import PixelHead
from rewardtune.tasks.uvim.stage_one import StageOne
from rewardtune.tasks.uvim.stage_one_file import save_stage_one

CATEGORIES = (
    Category(id=7, name="cat"),
    Category(id=3, name="dog"),
    Category(id=9, name="grass", is_thing=False),
)
SIZE = 32


def random_stage_one(kind: str, seed: int = 0) -> StageOne:
    """Every weight random, also those of the heads, which start at 0."""
    torch.manual_seed(seed)
    outputs = {"semantics": 4, "instances": 6} if kind == "panoptic" else {"color": 3}
    net = StageOne(
        StageOneConfig(
            input_size=SIZE,
            patch_size=8,
            width=24,
            num_heads=2,
            mlp_width=32,
            encoder_depth=1,
            decoder_depth=2,
            code_length=4,
            dict_size=10,
            codeword_width=8,
            outputs=outputs,
        )
    )
    for head in net.decoder.heads.values():
        assert isinstance(head, PixelHead)
        torch.nn.init.normal_(head.kernel, std=0.4)
        torch.nn.init.normal_(head.bias, std=0.2)
    return net


def write_stage_one(folder: Path, kind: str, seed: int = 0) -> Path:
    path = folder / f"{kind}-{seed}.safetensors"
    names = [category.name for category in CATEGORIES] if kind == "panoptic" else None
    save_stage_one(path, random_stage_one(kind, seed), class_names=names, provenance={})
    return path


def segment_map() -> NDArray[np.int64]:
    """Two cats, a dog and grass [24, 32]; the last rows are nobody's."""
    ids_HW = np.full((24, 32), 70000, dtype=np.int64)
    ids_HW[2:8, 3:9] = 300
    ids_HW[10:18, 20:30] = 5
    ids_HW[4:12, 12:18] = 66
    ids_HW[22:] = 0
    return ids_HW


def example(seed: int = 0, *, image_id: int = 1) -> Example:
    """A picture of ``segment_map``, noisy enough that no two regions look alike."""
    ids_HW = segment_map()
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (4, 3))
    _, place_N = np.unique(ids_HW, return_inverse=True)
    image = colours[place_N.reshape(ids_HW.shape) % 4] + rng.normal(0, 12, (*ids_HW.shape, 3))
    stream = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(stream, format="PNG")
    category_of = {300: 0, 5: 0, 66: 1, 70000: 2}
    return Example(
        image_id=image_id,
        file_name=f"pictures/{image_id:04d}.jpg",
        height=24,
        width=32,
        image=stream.getvalue(),
        xywh_N4=np.zeros((0, 4)),
        category_N=np.zeros(0, dtype=np.int64),
        area_N=np.zeros(0),
        is_crowd_N=np.zeros(0, dtype=bool),
        annotation_id_N=np.zeros(0, dtype=np.int64),
        panoptic_png=png_of_ids(ids_HW),
        segments=tuple(
            Segment(id=i, category=c, area=int((ids_HW == i).sum()), is_crowd=False)
            for i, c in category_of.items()
        ),
    )


class Examples:
    """A data set in memory."""

    digest = "in memory"
    categories = CATEGORIES

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def example(self, index: int) -> Example:
        return self._examples[index]
