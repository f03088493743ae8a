"""The pictures that COCO's lists of images name: found, read and checked."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rewardtune.datasets.coco.broken import Broken, BrokenLog
from rewardtune.datasets.coco.source import ImageEntry
from rewardtune.datasets.images import BrokenImage, inspect_image, without_orientation


def find_pictures(
    entries: Sequence[ImageEntry], images: Path, json_path: Path, log: BrokenLog
) -> list[tuple[ImageEntry, str]]:
    """Each image with the path of its picture; those that have none are logged.

    Args:
        images: the folder of pictures.
        json_path: of the list of images.
    """
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
class Picture:
    """A picture that decodes, with the size that its annotations assume."""

    data: bytes
    height: int
    width: int


def _load(entry: ImageEntry, path: Path) -> Picture | Broken:
    try:
        data = path.read_bytes()
        facts = inspect_image(data)
        height, width = entry.height or facts.height, entry.width or facts.width
        if (facts.height, facts.width) == (height, width):
            return Picture(data, height, width)
        if (facts.stored_height, facts.stored_width) == (height, width):
            return Picture(without_orientation(data), height, width)
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


def load_pictures(
    pictures: Sequence[tuple[ImageEntry, str]], *, workers: int
) -> Generator[tuple[ImageEntry, Picture | Broken], None, None]:
    """Read and check pictures in threads, a few ahead, handing them out in order."""
    waiting: deque[tuple[ImageEntry, Future[Picture | Broken]]] = deque()
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
