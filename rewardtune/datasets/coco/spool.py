"""Annotations by image, whatever order their file has.

Axis: A annotations.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.coco.broken import ConversionError


class Spool:
    """Annotations waiting on disk for their image; some 40 bytes of each stay in memory.

    COCO's files list annotations in no order that images could be written in.
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
    def near(cls, output: Path) -> Spool:
        """In the folder that ``output`` is to be made in."""
        # Where there must be room for the pictures anyway; /tmp may be small.
        return cls(next(folder for folder in output.absolute().parents if folder.is_dir()))

    def __enter__(self) -> Spool:
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
