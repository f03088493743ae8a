"""COCO's panoptic files: PNG maps of ids, and the JSON beside them.

In a map the id of a pixel is R + 256 G + 65536 B, 8 bits each. Only the colour counts: alpha is
ignored, as officially, and a palette stands for its colours. Grey and 16-bit pictures, and formats
that lose digits, are refused, because nothing says how to read an id from them.

Axes: H height, W width.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_ID = 2**24 - 1
_BIT_DEPTH_BYTE = 24
"""Where a PNG's header says how many bits a sample has."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictedMap:
    """One image's prediction, as COCO's results have it."""

    image_id: int
    file_name: str
    """Of the PNG, without folders."""
    id_HW: NDArray[np.integer[Any]]
    """In 0 .. 2^24 - 1; 0 is no segment."""
    category_ids: Mapping[int, int]
    """The category id, as in the annotation file, of each id that is painted."""


def read_ids(path: Path) -> NDArray[np.uint32]:
    """The ids [H, W] of a PNG on disk.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a map of ids; names the file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} is missing: the JSON names it as the map of an image"
        ) from None
    try:
        return ids_of_png(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def ids_of_png(data: bytes) -> NDArray[np.uint32]:
    """The ids [H, W] of an encoded map.

    Raises:
        ValueError: damaged, not a PNG, or of samples that give no ids.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format != "PNG":
                raise ValueError(f"a panoptic map must be a PNG, got {image.format}")
            if image.mode not in ("RGB", "RGBA", "P") or data[_BIT_DEPTH_BYTE] > 8:
                raise ValueError(
                    "a panoptic map must have colours of 8 bits (id = R + 256 G + 65536 B), got "
                    f"{image.mode} of {data[_BIT_DEPTH_BYTE]} bits"
                )
            # Four bytes a pixel, as Pillow holds them: a number each, with something on top.
            if image.mode == "P":
                pixels = image.convert("RGBA").tobytes()
            else:
                pixels = image.tobytes("raw", "RGBX" if image.mode == "RGB" else "RGBA")
            width, height = image.size
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"the map cannot be decoded: {error}") from None
    id_HW: NDArray[np.uint32] = np.frombuffer(pixels, dtype="<u4").reshape(height, width)
    return id_HW & np.uint32(MAX_ID)


def png_of_ids(id_HW: NDArray[np.integer[Any]]) -> bytes:
    """The map as an RGB PNG.

    Raises:
        ValueError: not integers in 0 .. 2^24 - 1 [H, W].
    """
    if id_HW.ndim != 2 or id_HW.size == 0 or not np.issubdtype(id_HW.dtype, np.integer):
        raise ValueError(f"a map must be integers [H, W], got {id_HW.dtype} {list(id_HW.shape)}")
    if not 0 <= int(id_HW.min()) <= int(id_HW.max()) <= MAX_ID:
        raise ValueError(f"ids must be in 0..{MAX_ID}, got {id_HW.min()}..{id_HW.max()}")
    bytes_HW4 = np.ascontiguousarray(id_HW.astype("<u4")).view(np.uint8).reshape(*id_HW.shape, 4)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(bytes_HW4[..., :3])).save(stream, format="PNG")
    return stream.getvalue()


def segments_info(
    id_HW: NDArray[np.integer[Any]], category_ids: Mapping[int, int]
) -> list[dict[str, int]]:
    """The list that stands beside a predicted map in the JSON, by rising id.

    Raises:
        ValueError: ids painted but not listed, or listed but not painted.
    """
    ids, areas = np.unique(id_HW, return_counts=True)
    area_of = dict(zip(ids.tolist(), areas.tolist(), strict=True))
    area_of.pop(0, None)
    if different := sorted(area_of.keys() ^ category_ids.keys()):
        is_listed = different[0] in category_ids
        problem = "listed but not painted" if is_listed else "painted but not listed"
        raise ValueError(f"segment {different[0]} is {problem}")
    return [
        {"id": identity, "category_id": int(category_ids[identity]), "iscrowd": 0, "area": area}
        for identity, area in area_of.items()
    ]


def write_predictions(
    path: Path, predictions: Iterable[PredictedMap], *, overwrite: bool = False
) -> None:
    """Write results as officially expected: ``path`` (JSON), and its PNGs in the folder beside it.

    The folder is ``path`` without its suffix. Both appear when they are whole, first the folder;
    a write that fails leaves nothing.

    Raises:
        FileExistsError: either is there and not to be replaced.
        ValueError: a map that does not fit its list, or a name used twice; names the image.
    """
    folder = path.with_suffix("")
    if folder == path:
        raise ValueError(f"{path} has no suffix: name the JSON file, such as {path}.json")
    for existing in (path, folder):
        if existing.exists() and not overwrite:
            raise FileExistsError(f"{existing} is already there: choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=path.parent))
    try:
        maps = work / "maps"
        maps.mkdir()
        annotations = []
        for prediction in predictions:
            target = maps / prediction.file_name
            if Path(prediction.file_name).name != prediction.file_name or target.exists():
                raise ValueError(
                    f"image {prediction.image_id}: '{prediction.file_name}' is no plain file name "
                    "or is used twice"
                )
            try:
                info = segments_info(prediction.id_HW, prediction.category_ids)
                target.write_bytes(png_of_ids(prediction.id_HW))
            except ValueError as error:
                raise ValueError(f"image {prediction.image_id}: {error}") from None
            annotations.append(
                {
                    "image_id": prediction.image_id,
                    "file_name": prediction.file_name,
                    "segments_info": info,
                }
            )
        (work / "list.json").write_text(json.dumps({"annotations": annotations}) + "\n")
        if folder.exists():
            os.replace(folder, work / "replaced")
        os.replace(maps, folder)
        os.replace(work / "list.json", path)
    finally:
        shutil.rmtree(work)
