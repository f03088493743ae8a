"""One image with everything a data set knows about it, as the shards store it.

Axes: N annotated objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Category:
    """One class of a data set; its place in the data set's list is the index used by codecs."""

    id: int
    """The id used in the data set's own files; may have gaps."""
    name: str
    is_thing: bool = True
    num_instances: int = 0
    """Annotated instances in this data set, crowds left out."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a panoptic map."""

    id: int
    category: int
    """Index into the data set's categories."""
    area: int
    is_crowd: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One image, still encoded, with its annotations in pixels of the upright image."""

    image_id: int
    file_name: str
    height: int
    width: int
    image: bytes
    """The encoded picture as it stood in the source (PNG or JPEG)."""
    xywh_N4: NDArray[np.float64]
    """Left, top, width, height."""
    category_N: NDArray[np.int64]
    """Index into the data set's categories."""
    area_N: NDArray[np.float64]
    is_crowd_N: NDArray[np.bool_]
    annotation_id_N: NDArray[np.int64]
    segmentation_N: tuple[str, ...] = ()
    """COCO segmentation of each object as JSON text (polygons or RLE); "" where there is none."""
    panoptic_png: bytes = b""
    """COCO panoptic map (id = R + 256 G + 65536 B); empty where there is none."""
    segments: tuple[Segment, ...] = ()
    captions: tuple[str, ...] = ()


class Dataset(Protocol):
    """Examples by index, with the facts that identify them."""

    @property
    def digest(self) -> str:
        """Hash of the manifest, which lists the shards' hashes."""
        ...

    @property
    def categories(self) -> Sequence[Category]: ...

    def __len__(self) -> int: ...

    def example(self, index: int) -> Example: ...
