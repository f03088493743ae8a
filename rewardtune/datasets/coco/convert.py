"""COCO's JSON files and a folder of pictures to a data set of ours.

Reads instances, panoptic and captions files of COCO, and whatever keeps to their layout:
Objects365, LVIS, the digit scenes, a user's own. Nothing is held whole: the JSON is read value
by value, annotations wait in a temporary file until their image comes, shards are written as
they fill.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rewardtune.datasets.coco.broken import Broken, BrokenLog, ConversionError
from rewardtune.datasets.coco.example import ExampleBuilder
from rewardtune.datasets.coco.pictures import find_pictures, load_pictures
from rewardtune.datasets.coco.source import CocoSource, ImageEntry, read_source
from rewardtune.datasets.coco.spool import Spool
from rewardtune.datasets.example import Category
from rewardtune.datasets.shards.writer import DEFAULT_SHARD_BYTES, ShardWriter, check_destination

_MAX_WORKERS = 4
"""Each may hold one decoded picture; more would not help, since one thread writes."""


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
    log = BrokenLog(skip=skip_broken)
    paths = {"instances": instances, "panoptic": panoptic, "captions": captions}
    with contextlib.ExitStack() as stack:
        sources = [
            read_source(path, kind=kind, spool=stack.enter_context(Spool.near(output)), log=log)
            for kind, path in paths.items()
            if path is not None
        ]
        entries = _merge_images(sources, log)
        categories = _merge_categories(sources)
        for source in sources:
            source.sort(image_ids=list(entries), categories=categories, log=log)
        pictures = find_pictures(list(entries.values()), images, sources[0].path, log)
        log.stop_if_broken()

        builder = ExampleBuilder(sources, categories, panoptic_images=panoptic_images, log=log)
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
        loaded = stack.enter_context(contextlib.closing(load_pictures(pictures, workers=workers)))
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


def _merge_images(sources: Sequence[CocoSource], log: BrokenLog) -> dict[int, ImageEntry]:
    merged: dict[int, ImageEntry] = {}
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


def _size(entry: ImageEntry) -> tuple[int | None, int | None]:
    return entry.height, entry.width


def _merge_categories(sources: Sequence[CocoSource]) -> tuple[Category, ...]:
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
