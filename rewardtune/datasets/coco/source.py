"""One JSON file of COCO, read through and checked item by item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeGuard

from rewardtune.datasets.coco.broken import Broken, BrokenLog, ConversionError
from rewardtune.datasets.coco.json_stream import JsonReader
from rewardtune.datasets.coco.spool import Spool
from rewardtune.datasets.example import Category


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One item of a list of images."""

    id: int
    file_name: str
    height: int | None
    width: int | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CocoSource:
    """One JSON file, read through."""

    path: Path
    kind: str
    images: list[ImageEntry]
    categories: list[Category]
    spool: Spool

    def sort(
        self, *, image_ids: Sequence[int], categories: Sequence[Category], log: BrokenLog
    ) -> None:
        """Make the annotations ready to be asked for by image; log those that belong nowhere."""
        # Only here has an annotation one class; a panoptic map's are looked up one by one.
        category_ids = [c.id for c in categories] if self.kind == "instances" else None
        for number, problem in self.spool.seal(image_ids=image_ids, category_ids=category_ids):
            log.add(Broken(self.path, _NAME_OF_ITEM[self.kind], number, problem))


_NAME_OF_ITEM = {"instances": "annotation", "panoptic": "panoptic map", "captions": "caption"}


def read_source(path: Path, *, kind: str, spool: Spool, log: BrokenLog) -> CocoSource:
    """Read a file once: its images and categories are kept, its annotations go to ``spool``.

    Args:
        kind: instances, panoptic or captions.

    Raises:
        ConversionError: the file cannot be opened, or is not COCO's.
    """
    images: list[ImageEntry] = []
    categories: list[Category] = []
    problem_of = {
        "instances": _instance_problem,
        "panoptic": _panoptic_problem,
        "captions": _caption_problem,
    }[kind]
    missing = {"images", "annotations"} | (set() if kind == "captions" else {"categories"})
    try:
        reader = JsonReader(path)
    except OSError as error:
        raise ConversionError(f"cannot open the {kind} file {path}: {error.strerror}") from error
    with reader:
        for key in reader:
            missing.discard(key)
            if key == "images":
                for item, _ in reader.items(key):
                    entry = _entry(item)
                    if entry is None:
                        why = f"its id {item.get('id')!r} is not an integer"
                        log.add(Broken(path, "image", None, why))
                    else:
                        images.append(entry)
            elif key == "annotations":
                for place, (item, text) in enumerate(reader.items(key)):
                    number = _number(item, kind=kind, place=place)
                    problem = "it has no integer id" if number is None else problem_of(item)
                    if number is None or problem is not None:
                        log.add(Broken(path, _NAME_OF_ITEM[kind], number, problem or ""))
                        continue
                    category_id = item["category_id"] if kind == "instances" else 0
                    spool.add(
                        text, image_id=item["image_id"], number=number, category_id=category_id
                    )
            elif key == "categories" and kind != "captions":
                categories = [_category(item, path) for item, _ in reader.items(key)]
            else:
                reader.skip()
    if missing:
        raise ConversionError(
            f"{path} has no {' and no '.join(repr(key) for key in sorted(missing))}: "
            f"a COCO {kind} file is an object with these lists"
        )
    return CocoSource(path=path, kind=kind, images=images, categories=categories, spool=spool)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _entry(item: Mapping[str, Any]) -> ImageEntry | None:
    if not _is_id(item.get("id")):
        return None
    problem = None
    sides = [item.get("height"), item.get("width")]
    if sides != [None, None] and not all(_is_id(side) and side > 0 for side in sides):
        problem = f"its height and width are {sides}, not two positive integers"
    file_name = item.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        url = item.get("coco_url")
        file_name = (
            "/".join(url.split("/")[-2:]) if isinstance(url, str) and url else ""
        ) or f"{item['id']:012d}.jpg"
    return ImageEntry(item["id"], file_name, sides[0], sides[1], problem)


def _category(item: Mapping[str, Any], path: Path) -> Category:
    if not _is_id(item.get("id")) or not isinstance(item.get("name"), str):
        raise ConversionError(f"{path}: category {dict(item)} needs an integer id and a name")
    return Category(id=item["id"], name=item["name"], is_thing=bool(item.get("isthing", 1)))


def _number(item: Mapping[str, Any], *, kind: str, place: int) -> int | None:
    """What tells an annotation from the others of its file."""
    if kind == "panoptic":
        number = item.get("image_id")
    else:
        # Nothing refers to a caption by its id, and many files have none.
        number = item.get("id", place if kind == "captions" else None)
    return number if _is_id(number) else None


def _instance_problem(item: Mapping[str, Any]) -> str | None:
    for key in ("image_id", "category_id"):
        if not _is_id(item.get(key)):
            return f"its {key} is {item.get(key)!r}, not an integer"
    box = item.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite, box)):
        return f"its bbox is {box!r}, not four finite numbers (left, top, width, height)"
    if box[2] < 0 or box[3] < 0:
        return f"its bbox {box!r} has a negative width or height"
    if not _is_finite(item.get("area", 0)):
        return f"its area is {item['area']!r}, not a finite number"
    return None


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _panoptic_problem(item: Mapping[str, Any]) -> str | None:
    segments = item.get("segments_info")
    if not isinstance(segments, list):
        return "it has no segments_info"
    for segment in segments:
        is_usable = (
            isinstance(segment, dict)
            and _is_id(segment.get("id"))
            and _is_id(segment.get("category_id"))
            and _is_finite(segment.get("area", 0))
        )
        if not is_usable:
            return f"its segment {segment!r} needs an integer id and category_id, and a finite area"
    if not isinstance(item.get("file_name", ""), str):
        return f"its file_name is {item['file_name']!r}, not a text"
    return None


def _caption_problem(item: Mapping[str, Any]) -> str | None:
    if not _is_id(item.get("image_id")):
        return f"its image_id is {item.get('image_id')!r}, not an integer"
    if not isinstance(item.get("caption"), str):
        return f"its caption is {item.get('caption')!r}, not a text"
    return None
