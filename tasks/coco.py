"""COCO's JSON files and a folder of pictures to a data set of ours, and back to ground truth.

Reads instances, panoptic and captions files of COCO, and whatever keeps to their layout:
Objects365, LVIS, the digit scenes, a user's own. Nothing is held whole: the JSON is read value
by value, annotations wait in a temporary file until their image comes, shards are written as
they fill.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from array import array
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeGuard

import numpy as np
from numpy.typing import NDArray

from tasks.example import Category, Dataset, Example, Segment
from tasks.images import BrokenImage, inspect_image, without_orientation
from tasks.shards import DEFAULT_SHARD_BYTES, ShardWriter, check_destination

_READ_CHARS = 2**20
_MAX_WORKERS = 4
"""Each may hold one decoded picture; more would not help, since one thread writes."""
_NUM_LISTED = 5
"""Broken things that an error message spells out; the report lists all of them."""


class ConversionError(ValueError):
    """The input is not COCO's format, or holds broken things that nobody said to skip."""


@dataclass(frozen=True, slots=True)
class Broken:
    """One thing in the input that cannot be used as it stands."""

    file: Path
    """The JSON file or picture at fault."""
    kind: str
    """image, annotation, panoptic map or caption."""
    id: int | None
    problem: str

    def __str__(self) -> str:
        name = "?" if self.id is None else self.id
        return f"{self.file}: {self.kind} {name}: {self.problem}"


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion made, and what it left out."""

    num_examples: int
    skipped: tuple[Broken, ...]
    digest: str


def convert_coco(
    *,
    images: Path,
    output: Path,
    instances: Path | None = None,
    panoptic: Path | None = None,
    panoptic_images: Path | None = None,
    captions: Path | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    workers: int | None = None,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> ConversionReport:
    """Write a data set from pictures and any of COCO's three kinds of JSON.

    Examples come in the order of the first file's list of images, followed by images that only
    the later files know; annotations of an image keep their order; the classes are those of the
    instances and panoptic files together, by id. Same input, same digest.

    A picture is looked for under its ``file_name``, then under that name with its leading
    folders removed one by one (Objects365 writes ``images/v1/patch8/x.jpg``). Without a
    ``file_name``, ``coco_url`` stands in (LVIS), then the id with twelve digits and ``.jpg``.
    The listed height and width say what the annotations mean where EXIF turns the picture: if
    only the unturned picture has this size, it is stored without its orientation.

    Boxes are stored as they stand, even where they reach outside the image or have no area,
    because the official metric counts them so. Broken are: images listed twice, missing,
    unreadable, or of another size; annotations without a usable id, class or box (four finite
    numbers, sides not negative), and those of unlisted images. An image that is left out takes
    its annotations along.

    Args:
        images: the folder of pictures.
        output: the folder to make; see ``ShardWriter``.
        panoptic_images: the folder of panoptic PNGs; by default the panoptic JSON without its
            ``.json``, as COCO has it.
        skip_broken: leave broken things out and list them in the report; otherwise the first
            stop the conversion.
        overwrite: replace a data set that is in ``output``.
        progress: called with images done and images in all.
        workers: threads that read and check pictures; by default one per core, at most 4.

    Raises:
        ConversionError: the JSON is not COCO's, or something is broken.
        DatasetError: ``output`` cannot be used.
        ValueError: no JSON file was given.
    """
    if instances is None and panoptic is None and captions is None:
        raise ValueError("nothing to convert: give an instances, panoptic or captions file")
    if not images.is_dir():
        raise ConversionError(f"{images} is no folder: images must name the folder of pictures")
    if panoptic is not None:
        panoptic_images = panoptic_images or panoptic.with_suffix("")
        if not panoptic_images.is_dir():
            raise ConversionError(
                f"{panoptic_images} is no folder: panoptic_images must name the folder of PNGs"
            )
    check_destination(output, overwrite=overwrite)
    log = _Log(skip=skip_broken)
    paths = {"instances": instances, "panoptic": panoptic, "captions": captions}
    with contextlib.ExitStack() as stack:
        sources = [
            _read_source(path, kind=kind, spool=stack.enter_context(_Spool.near(output)), log=log)
            for kind, path in paths.items()
            if path is not None
        ]
        entries = _merge_images(sources, log)
        categories = _merge_categories(sources)
        for source in sources:
            source.sort(image_ids=list(entries), categories=categories, log=log)
        pictures = _find_pictures(list(entries.values()), images, sources[0].path, log)
        log.stop_if_broken()

        builder = _Builder(sources, categories, panoptic_images=panoptic_images, log=log)
        writer = stack.enter_context(
            ShardWriter(
                output,
                categories=categories,
                source="COCO: " + ", ".join(source.path.name for source in sources),
                shard_bytes=shard_bytes,
                overwrite=overwrite,
            )
        )
        workers = workers or min(_MAX_WORKERS, len(os.sched_getaffinity(0)))
        loaded = stack.enter_context(contextlib.closing(_load_all(pictures, workers=workers)))
        for done, (entry, picture) in enumerate(loaded, start=1):
            if isinstance(picture, Broken):
                log.add(picture)
            else:
                writer.add(builder.example(entry, picture))
            log.stop_if_broken()
            if progress is not None:
                progress(done, len(pictures))
    return ConversionReport(
        num_examples=writer.num_examples, skipped=tuple(log.broken), digest=writer.digest
    )


def coco_instances(dataset: Dataset, indices: Sequence[int]) -> dict[str, Any]:
    """The examples at ``indices`` as the contents of a COCO instances file, ids as they were.

    What pycocotools needs as ground truth; boxes, areas and segmentations are the source's.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    category_ids = [category.id for category in dataset.categories]
    for index in indices:
        example = dataset.example(index)
        images.append(
            {
                "id": example.image_id,
                "file_name": example.file_name,
                "height": example.height,
                "width": example.width,
            }
        )
        columns = zip(
            example.annotation_id_N.tolist(),
            example.category_N.tolist(),
            example.xywh_N4.tolist(),
            example.area_N.tolist(),
            example.is_crowd_N.tolist(),
            example.segmentation_N or ("",) * len(example.category_N),
            strict=True,
        )
        for number, category, xywh, area, is_crowd, segmentation in columns:
            annotation = {
                "id": number,
                "image_id": example.image_id,
                "category_id": category_ids[category],
                "bbox": xywh,
                "area": area,
                "iscrowd": int(is_crowd),
            }
            if segmentation:
                annotation["segmentation"] = json.loads(segmentation)
            annotations.append(annotation)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c.id, "name": c.name} for c in dataset.categories],
    }


# --- what is broken --------------------------------------------------------------------------


class _Log:
    """Broken things found so far; either they are skipped, or they stop the conversion."""

    def __init__(self, *, skip: bool) -> None:
        self.broken: list[Broken] = []
        self._skip = skip

    def add(self, broken: Broken) -> None:
        self.broken.append(broken)

    def stop_if_broken(self) -> None:
        if not self.broken or self._skip:
            return
        listed = "\n".join(f"  {broken}" for broken in self.broken[:_NUM_LISTED])
        more = len(self.broken) - _NUM_LISTED
        raise ConversionError(
            f"{len(self.broken)} broken in the input:\n{listed}\n"
            + (f"  ... and {more} more\n" if more > 0 else "")
            + "mend them, or ask to skip what is broken"
        )


# --- reading JSON ----------------------------------------------------------------------------


class JsonReader:
    """Walk a JSON object too large to hold: its keys, and the items of its arrays.

    Python's own decoder on a sliding window: as fast as ijson, but it also reads the NaN that
    Python writes (so that a broken box can be named) and hands out each item's text.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open(encoding="utf-8-sig")
        self._text = ""
        self._at = 0
        self._num_dropped = 0
        self._decode = json.JSONDecoder().raw_decode

    def __enter__(self) -> JsonReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        """The keys of the top-level object; read or ``skip`` each one's value in between."""
        self._expect("{")
        if self._next() == "}":
            return
        while True:
            key, _ = self._value()
            self._expect(":")
            yield str(key)
            if self._next() != ",":
                break
            self._at += 1
        self._expect("}")

    def items(self, key: str) -> Iterator[tuple[dict[str, Any], str]]:
        """The objects in the array that follows, each with its text."""
        if self._next() != "[":
            self._fail(f"'{key}' is not a list")
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        while True:
            value, text = self._value()
            if not isinstance(value, dict):
                self._fail(f"an item of '{key}' is not an object")
            yield value, text
            if self._next() != ",":
                break
            self._at += 1
        self._expect("]")

    def skip(self) -> None:
        self._value()

    def _value(self) -> tuple[Any, str]:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Cut off by the window's end, or truly wrong? A token that is cut off starts
                # within a few characters of the end, except a string.
                place = self._num_dropped + error.pos
                is_cut = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated")
                if not (is_cut and self._more()):
                    self._fail(error.msg, place=place)
                continue
            # A number at the window's very end may go on: "0" was decoded of "0." or "0e-".
            if len(self._text) - end <= 2 and not self._text[end:].strip(".eE+-") and self._more():
                continue
            text = self._text[self._at : end]
            self._at = end
            return value, text

    def _more(self) -> bool:
        # As much again as is waiting: an item of any length is decoded few times.
        chunk = self._file.read(max(_READ_CHARS, len(self._text) - self._at))
        self._num_dropped += self._at
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _next(self) -> str:
        """The next character that is not white space, not yet consumed; "" at the end."""
        while True:
            while self._at < len(self._text):
                char = self._text[self._at]
                if char not in " \t\r\n":
                    return char
                self._at += 1
            if not self._more():
                return ""

    def _expect(self, char: str) -> None:
        found = self._next()
        if found != char:
            self._fail(f"expected '{char}', found " + (f"'{found}'" if found else "the end"))
        self._at += 1

    def _fail(self, problem: str, *, place: int | None = None) -> NoReturn:
        place = self._num_dropped + self._at if place is None else place
        raise ConversionError(
            f"{self._path} cannot be read as COCO JSON: {problem} (character {place})"
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One item of a list of images."""

    id: int
    file_name: str
    height: int | None
    width: int | None
    problem: str | None = None


class _Spool:
    """Annotations waiting on disk for their image; some 40 bytes of each stay in memory.

    COCO's files list annotations in no order that images could be written in. Axis: A
    annotations.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._image_ids = array("q")
        self._ids = array("q")
        self._category_ids = array("q")
        self._offsets = array("q", [0])
        self._order = np.zeros(0, dtype=np.int64)
        self._sorted_image_ids = np.zeros(0, dtype=np.int64)

    @classmethod
    def near(cls, output: Path) -> _Spool:
        # Where there must be room for the pictures anyway; /tmp may be small.
        return cls(next(folder for folder in output.absolute().parents if folder.is_dir()))

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take is not needed now
            self._file.close()

    def add(self, text: str, *, image_id: int, number: int, category_id: int) -> None:
        data = text.encode()
        try:
            self._file.write(data)
        except OSError as error:
            raise ConversionError(
                f"cannot keep annotations in a temporary file in {self._folder}: "
                f"{error.strerror}; make room there, about as much as the JSON files take"
            ) from error
        self._image_ids.append(image_id)
        self._ids.append(number)
        self._category_ids.append(category_id)
        self._offsets.append(self._offsets[-1] + len(data))

    def seal(
        self, *, image_ids: Sequence[int], category_ids: Sequence[int] | None
    ) -> list[tuple[int, str]]:
        """Sort by image, leaving out what has no listed image or class, or an id used before.

        Returns:
            id and problem of each annotation left out.
        """
        self._file.flush()
        image_id_A, id_A = _int64(self._image_ids), _int64(self._ids)
        category_id_A = _int64(self._category_ids)
        is_unlisted_A = np.isin(image_id_A, np.array(image_ids, dtype=np.int64), invert=True)
        is_classless_A = np.zeros(len(id_A), dtype=np.bool_)
        if category_ids is not None:
            known = np.array(category_ids, dtype=np.int64)
            is_classless_A = np.isin(category_id_A, known, invert=True)
        is_repeated_A = np.ones(len(id_A), dtype=np.bool_)
        is_repeated_A[np.unique(id_A, return_index=True)[1]] = False

        left_out = []
        for place in np.flatnonzero(is_unlisted_A | is_classless_A | is_repeated_A).tolist():
            if is_unlisted_A[place]:
                problem = f"its image {image_id_A[place]} is not in the list of images"
            elif is_classless_A[place]:
                problem = f"its category {category_id_A[place]} is not in the list of categories"
            else:
                problem = "an annotation before it has the same id"
            left_out.append((int(id_A[place]), problem))

        kept = np.flatnonzero(~(is_unlisted_A | is_classless_A | is_repeated_A))
        self._order = kept[np.argsort(image_id_A[kept], kind="stable")]
        self._sorted_image_ids = image_id_A[self._order]
        self._image_ids, self._ids, self._category_ids = array("q"), array("q"), array("q")
        return left_out

    def of(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of an image, in the order of the file."""
        start = np.searchsorted(self._sorted_image_ids, image_id, side="left")
        stop = np.searchsorted(self._sorted_image_ids, image_id, side="right")
        found = []
        for place in self._order[start:stop].tolist():
            offset = self._offsets[place]
            # Not a memory map: its pages would count as the conversion's memory.
            text = os.pread(self._file.fileno(), self._offsets[place + 1] - offset, offset)
            found.append(json.loads(text))
        return found


def _int64(values: array[int]) -> NDArray[np.int64]:
    # numpy reads "q" as long long, which it keeps apart from the equal int64, and converts the
    # whole array at every search.
    return np.asarray(values).view(np.int64)


@dataclass(frozen=True, slots=True)
class _Source:
    """One JSON file, read through."""

    path: Path
    kind: str
    images: list[_Entry]
    categories: list[Category]
    spool: _Spool

    def sort(self, *, image_ids: Sequence[int], categories: Sequence[Category], log: _Log) -> None:
        """Make the annotations ready to be asked for by image; log those that belong nowhere."""
        # Only here has an annotation one class; a panoptic map's are looked up one by one.
        category_ids = [c.id for c in categories] if self.kind == "instances" else None
        for number, problem in self.spool.seal(image_ids=image_ids, category_ids=category_ids):
            log.add(Broken(self.path, _NAME_OF_ITEM[self.kind], number, problem))


_NAME_OF_ITEM = {"instances": "annotation", "panoptic": "panoptic map", "captions": "caption"}


def _read_source(path: Path, *, kind: str, spool: _Spool, log: _Log) -> _Source:
    images: list[_Entry] = []
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
    return _Source(path=path, kind=kind, images=images, categories=categories, spool=spool)


def _is_id(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _entry(item: Mapping[str, Any]) -> _Entry | None:
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
    return _Entry(item["id"], file_name, sides[0], sides[1], problem)


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


# --- putting the files together --------------------------------------------------------------


def _merge_images(sources: Sequence[_Source], log: _Log) -> dict[int, _Entry]:
    merged: dict[int, _Entry] = {}
    for source in sources:
        seen: set[int] = set()
        for entry in source.images:
            known = merged.setdefault(entry.id, entry)
            if entry.id in seen:
                log.add(Broken(source.path, "image", entry.id, "it is listed twice"))
            elif entry.height and known.height and _size(known) != _size(entry):
                problem = (
                    f"it is {entry.height} x {entry.width} (height x width) here but "
                    f"{known.height} x {known.width} in {sources[0].path}"
                )
                log.add(Broken(source.path, "image", entry.id, problem))
            seen.add(entry.id)
    return merged


def _size(entry: _Entry) -> tuple[int | None, int | None]:
    return entry.height, entry.width


def _merge_categories(sources: Sequence[_Source]) -> tuple[Category, ...]:
    merged: dict[int, Category] = {}
    for source in sources:
        seen: set[int] = set()
        for category in source.categories:
            known = merged.get(category.id, category)
            if category.id in seen or known.name != category.name:
                raise ConversionError(
                    f"{source.path}: category id {category.id} stands for '{known.name}' and "
                    f"'{category.name}': give every class an id of its own"
                )
            seen.add(category.id)
            # The panoptic file comes later and knows which classes are things.
            merged[category.id] = category
    return tuple(merged[number] for number in sorted(merged))


def _find_pictures(
    entries: Sequence[_Entry], images: Path, json_path: Path, log: _Log
) -> list[tuple[_Entry, str]]:
    found = []
    for entry in entries:
        if entry.problem is not None:
            log.add(Broken(json_path, "image", entry.id, entry.problem))
            continue
        parts = PurePosixPath(entry.file_name.lstrip("/")).parts
        if ".." in parts:
            problem = f"its file_name {entry.file_name!r} leaves the folder of pictures"
            log.add(Broken(json_path, "image", entry.id, problem))
            continue
        tries = (os.path.join(images, *parts[start:]) for start in range(len(parts)))
        path = next(filter(os.path.isfile, tries), None)
        if path is None:
            log.add(Broken(images / entry.file_name, "image", entry.id, "there is no such file"))
        else:
            # As text: a million Path objects take 400 MB.
            found.append((entry, path))
    return found


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that decodes, with the size that its annotations assume."""

    data: bytes
    height: int
    width: int


def _load(entry: _Entry, path: Path) -> _Picture | Broken:
    try:
        data = path.read_bytes()
        facts = inspect_image(data)
        height, width = entry.height or facts.height, entry.width or facts.width
        if (facts.height, facts.width) == (height, width):
            return _Picture(data, height, width)
        if (facts.stored_height, facts.stored_width) == (height, width):
            return _Picture(without_orientation(data), height, width)
    except OSError as error:
        return Broken(path, "image", entry.id, f"it cannot be read: {error.strerror}")
    except BrokenImage as error:
        return Broken(path, "image", entry.id, str(error))
    return Broken(
        path,
        "image",
        entry.id,
        f"it is {facts.height} x {facts.width} pixels (height x width), "
        f"the JSON says {height} x {width}",
    )


def _load_all(
    pictures: Sequence[tuple[_Entry, str]], *, workers: int
) -> Generator[tuple[_Entry, _Picture | Broken], None, None]:
    """Read and check pictures in threads, a few ahead, handing them out in order."""
    waiting: deque[tuple[_Entry, Future[_Picture | Broken]]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for entry, path in pictures:
            waiting.append((entry, pool.submit(_load, entry, Path(path))))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Builder:
    """Makes an image's example from what the JSON files say of it."""

    def __init__(
        self,
        sources: Sequence[_Source],
        categories: Sequence[Category],
        *,
        panoptic_images: Path | None,
        log: _Log,
    ) -> None:
        self._sources = {source.kind: source for source in sources}
        self._index_of = {category.id: index for index, category in enumerate(categories)}
        self._panoptic_images = panoptic_images
        self._log = log

    def example(self, entry: _Entry, picture: _Picture) -> Example:
        objects = self._annotations("instances", entry.id)
        example = Example(
            image_id=entry.id,
            file_name=entry.file_name,
            height=picture.height,
            width=picture.width,
            image=picture.data,
            xywh_N4=np.array([o["bbox"] for o in objects], dtype=np.float64).reshape(-1, 4),
            category_N=np.array(
                [self._index_of[o["category_id"]] for o in objects], dtype=np.int64
            ),
            area_N=np.array(
                [o.get("area", o["bbox"][2] * o["bbox"][3]) for o in objects], dtype=np.float64
            ),
            is_crowd_N=np.array([bool(o.get("iscrowd", 0)) for o in objects], dtype=np.bool_),
            annotation_id_N=np.array([o["id"] for o in objects], dtype=np.int64),
            segmentation_N=tuple(_segmentation_text(o) for o in objects),
            captions=tuple(c["caption"] for c in self._annotations("captions", entry.id)),
        )
        for annotation in self._annotations("panoptic", entry.id):
            example = self._with_panoptic(example, annotation)
        return example

    def _annotations(self, kind: str, image_id: int) -> list[dict[str, Any]]:
        return self._sources[kind].spool.of(image_id) if kind in self._sources else []

    def _with_panoptic(self, example: Example, annotation: Mapping[str, Any]) -> Example:
        assert self._panoptic_images is not None  # convert_coco found it beside the JSON
        name = annotation.get("file_name") or PurePosixPath(example.file_name).stem + ".png"
        path = self._panoptic_images / PurePosixPath(name).name
        problem = None
        data = b""
        try:
            data = path.read_bytes()
            facts = inspect_image(data)
            if (facts.height, facts.width) != (example.height, example.width):
                problem = (
                    f"its map is {facts.height} x {facts.width} (height x width), "
                    f"its image {example.height} x {example.width}"
                )
        except OSError as error:
            problem = f"its map cannot be read: {error.strerror}"
        except BrokenImage as error:
            problem = str(error)
        segments = annotation["segments_info"]
        unknown = [s["category_id"] for s in segments if s["category_id"] not in self._index_of]
        if unknown:
            problem = f"its categories {unknown} are not in the list of categories"
        if problem is not None:
            self._log.add(Broken(path, "panoptic map", example.image_id, problem))
            return example
        return replace(
            example,
            panoptic_png=data,
            segments=tuple(
                Segment(
                    id=s["id"],
                    category=self._index_of[s["category_id"]],
                    area=int(s.get("area", 0)),
                    is_crowd=bool(s.get("iscrowd", 0)),
                )
                for s in segments
            ),
        )


def _segmentation_text(annotation: Mapping[str, Any]) -> str:
    segmentation = annotation.get("segmentation")
    # Written anew, so that the digest does not depend on the spacing of the source.
    return "" if segmentation is None else json.dumps(segmentation, separators=(",", ":"))
