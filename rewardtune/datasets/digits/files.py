"""Digit scenes as COCO files, and those as data sets: the path that real photographs take.

``OUTPUT/coco/SPLIT`` holds what COCO would publish, ``OUTPUT/SPLIT`` the data set made of it by
the same converter. Axes: N objects of a scene.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from rewardtune.datasets.coco.convert import convert_coco
from rewardtune.datasets.digits.captions import describe
from rewardtune.datasets.digits.scenes import (
    DIGIT_NAMES,
    SPLITS,
    TEXTURES,
    Scene,
    SceneStyle,
    Split,
    compose_scene,
    load_glyphs,
)

Annotations = Literal["instances", "panoptic"]
NUM_SCENES: Mapping[Split, int] = MappingProxyType(
    {"train": 8000, "holdout": 500, "validation": 500}
)
STYLE = SceneStyle()
RECORD_NAME = "digits.json"
"""What the scenes in a folder were made from; written last."""

_RECORD_VERSION = 3
_FIRST_DIGIT_ID = 1
_FIRST_TEXTURE_ID = 11
_DIGIT_CATEGORIES = [
    {"id": _FIRST_DIGIT_ID + label, "name": name, "supercategory": "digit"}
    for label, name in enumerate(DIGIT_NAMES)
]
_PANOPTIC_CATEGORIES = [{**category, "isthing": 1} for category in _DIGIT_CATEGORIES] + [
    {
        "id": _FIRST_TEXTURE_ID + texture,
        "name": name,
        "supercategory": "texture",
        "isthing": 0,
    }
    for texture, name in enumerate(TEXTURES)
]


def write_digits(
    output: Path,
    *,
    num_scenes: Mapping[Split, int] = NUM_SCENES,
    seed: int = 0,
    first_scene: int = 0,
    style: SceneStyle = STYLE,
    annotations: Annotations = "instances",
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Write digit scenes as COCO files and convert them; False if they are there already.

    A scene follows from ``seed``, its split and its index alone, so a larger set begins with
    the scenes of a smaller one.

    Args:
        output: a new or empty folder, or one that this function wrote. It appears when all of
            it is written.
        num_scenes: how many of each split; a split that is left out or 0 is not written.
        first_scene: index of the first training scene: from 20,000 on they are scenes that none of
            the first 20,000 is among.
        annotations: what the data sets hold. "instances": boxes and masks of the ten digits, and
            captions; "panoptic": maps of digits and background textures. ``coco`` has it all.
        progress: called with scenes written and scenes in all.

    Raises:
        ValueError: ``output`` holds something else, or no scenes are asked for.
    """
    num_scenes = {split: num_scenes[split] for split in SPLITS if num_scenes.get(split, 0) > 0}
    if not num_scenes:
        raise ValueError("no scenes to write: ask for at least one in a split")
    record = {
        "version": _RECORD_VERSION,
        "seed": seed,
        "num_scenes": num_scenes,
        "style": asdict(style),
        "annotations": annotations,
        # Only where it says something: folders from before there was a choice stay valid.
        **({"first_scene": first_scene} if first_scene else {}),
    }
    if _holds(output, record):
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    # Nobody ever sees half a data set: it grows beside its place, which a rename then takes.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as hidden:
        made = Path(hidden) / "made"
        written, total = 0, sum(num_scenes.values())
        for split, count in num_scenes.items():
            coco = made / "coco" / split
            first = first_scene if split == "train" else 0
            indices = range(first, first + count)
            for _ in _write_coco(coco, split, indices, seed=seed, style=style):
                written += 1
                if progress is not None:
                    progress(written, total)
            is_panoptic = annotations == "panoptic"
            convert_coco(
                images=coco / "images",
                instances=None if is_panoptic else coco / "instances.json",
                captions=None if is_panoptic else coco / "captions.json",
                panoptic=coco / "panoptic.json" if is_panoptic else None,
                output=made / split,
            )
        _write_json(made / RECORD_NAME, record)
        made.rename(output)
    return True


def _holds(output: Path, record: Mapping[str, Any]) -> bool:
    """Whether the scenes are there; raises where something else is."""
    path = output / RECORD_NAME
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found == record:
            return True
        keys = [*record, *(key for key in found if key not in record)]
        differing = [key for key in keys if found.get(key) != record.get(key)]
        listed = ", ".join(f"{key} = {found.get(key)} (not {record.get(key)})" for key in differing)
        raise ValueError(
            f"{output} holds digit scenes of other settings: {listed}; "
            "choose another folder or remove it"
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(
            f"{output} holds other files and no {RECORD_NAME}: choose another folder or empty it"
        )
    return False


def _write_coco(
    folder: Path, split: Split, indices: range, *, seed: int, style: SceneStyle
) -> Iterator[int]:
    """COCO files of one split, scene by scene; complete when the iterator is exhausted."""
    glyphs = load_glyphs(split)
    description = f"rewardtune digit scenes: seed {seed}, {split}"
    files = _CocoFiles(folder, description=description)
    for index in indices:
        rng = np.random.default_rng([seed, SPLITS.index(split), index])
        scene = compose_scene(glyphs, rng, style)
        files.add(scene, describe(scene, rng))
        yield index
    files.write_annotations()


class _CocoFiles:
    """Scenes as COCO lays them out: two folders of pictures and three JSON files."""

    def __init__(self, folder: Path, *, description: str) -> None:
        self._folder = folder
        self._description = description
        self._images: list[dict[str, Any]] = []
        self._instances: list[dict[str, Any]] = []
        self._panoptic: list[dict[str, Any]] = []
        self._captions: list[dict[str, Any]] = []
        for name in ("images", "panoptic"):
            (folder / name).mkdir(parents=True)

    def add(self, scene: Scene, captions: Sequence[str]) -> None:
        image_id, name = len(self._images) + 1, f"{len(self._images):06d}.png"
        height, width = scene.texture_HW.shape
        self._images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for instance in _instances(scene):
            number = len(self._instances) + 1
            self._instances.append({"id": number, "image_id": image_id, **instance})
        for caption in captions:
            number = len(self._captions) + 1
            self._captions.append({"id": number, "image_id": image_id, "caption": caption})
        segment_HW, segments = _segments(scene)
        self._panoptic.append({"image_id": image_id, "file_name": name, "segments_info": segments})
        Image.fromarray(scene.image_HWC).save(self._folder / "images" / name)
        _segment_picture(segment_HW).save(self._folder / "panoptic" / name)

    def write_annotations(self) -> None:
        common = {"info": {"description": self._description}, "images": self._images}
        contents = {
            "instances": {"annotations": self._instances, "categories": _DIGIT_CATEGORIES},
            "panoptic": {"annotations": self._panoptic, "categories": _PANOPTIC_CATEGORIES},
            "captions": {"annotations": self._captions},
        }
        for kind, content in contents.items():
            _write_json(self._folder / f"{kind}.json", {**common, **content})


def _instances(scene: Scene) -> list[dict[str, Any]]:
    """Category, box, area and compressed RLE of each digit's visible strokes."""
    if len(scene.labels_N) == 0:
        return []
    stacked_HWN = np.asfortranarray(scene.masks_NHW.transpose(1, 2, 0).astype(np.uint8))
    rle_N = coco_mask.encode(stacked_HWN)
    return [
        {
            "category_id": _FIRST_DIGIT_ID + int(label),
            "bbox": [float(side) for side in coco_mask.toBbox(rle)],
            "area": int(coco_mask.area(rle)),
            "iscrowd": 0,
            "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        }
        for label, rle in zip(scene.labels_N, rle_N, strict=True)
    ]


def _segments(scene: Scene) -> tuple[NDArray[np.int64], list[dict[str, Any]]]:
    """The map of segment ids, and what COCO says about each: digits first, then textures."""
    segment_HW = np.zeros(scene.texture_HW.shape, dtype=np.int64)
    categories: list[int] = []
    for label, mask_HW in zip(scene.labels_N, scene.masks_NHW, strict=True):
        categories.append(_FIRST_DIGIT_ID + int(label))
        segment_HW[mask_HW] = len(categories)
    is_background_HW = segment_HW == 0
    for texture in np.unique(scene.texture_HW[is_background_HW]):
        categories.append(_FIRST_TEXTURE_ID + int(texture))
        segment_HW[is_background_HW & (scene.texture_HW == texture)] = len(categories)

    segments = []
    for number, category in enumerate(categories, start=1):
        rows, columns = np.nonzero(segment_HW == number)
        left, top = int(columns.min()), int(rows.min())
        segments.append(
            {
                "id": number,
                "category_id": category,
                "area": len(rows),
                "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
                "iscrowd": 0,
            }
        )
    return segment_HW, segments


def _segment_picture(segment_HW: NDArray[np.int64]) -> Image.Image:
    """Segment ids as COCO's colours: id = R + 256 G + 65536 B."""
    rgb_HW3 = np.stack([segment_HW % 256, segment_HW // 256 % 256, segment_HW // 65536], axis=-1)
    return Image.fromarray(rgb_HW3.astype(np.uint8))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
