"""A folder of pictures as a data set without annotations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.images import BrokenImage, inspect_image

SUFFIXES = (".jpg", ".jpeg", ".png")


class ImageFolder:
    """The pictures of one folder by name; image ids count from 1.

    Args:
        folder: read when it is opened here; pictures are read one by one, when asked for.
        categories: what a policy may find in them.

    Raises:
        ValueError: there is no such folder, or no picture in it.
    """

    def __init__(self, folder: Path, *, categories: Sequence[Category]) -> None:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder of pictures")
        self._paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise ValueError(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
        self._categories = tuple(categories)

    @property
    def digest(self) -> str:
        """Hash of the names: nothing vouches for what the files hold."""
        return hashlib.sha256("\0".join(path.name for path in self._paths).encode()).hexdigest()

    @property
    def categories(self) -> Sequence[Category]:
        return self._categories

    def __len__(self) -> int:
        return len(self._paths)

    def example(self, index: int) -> Example:
        """Read one picture.

        Raises:
            ValueError: it cannot be read; names the file.
        """
        path = self._paths[index]
        data = path.read_bytes()
        try:
            facts = inspect_image(data)
        except BrokenImage as error:
            raise ValueError(f"{path}: {error}") from error
        return Example(
            image_id=index + 1,
            file_name=path.name,
            height=facts.height,
            width=facts.width,
            image=data,
            xywh_N4=np.zeros((0, 4)),
            category_N=np.zeros(0, dtype=np.int64),
            area_N=np.zeros(0),
            is_crowd_N=np.zeros(0, dtype=np.bool_),
            annotation_id_N=np.zeros(0, dtype=np.int64),
        )
