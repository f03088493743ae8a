"""Data sets on disk: Arrow shards, memory-mapped, and a manifest that vouches for them.

A data set is a folder of ``shard-NNNNN.arrow`` files and ``manifest.json``, which is written
last: where there is no manifest there is no data set. Axes: R rows of a record batch, N objects
of an example.
"""

from __future__ import annotations

import bisect
import contextlib
import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.example import Category, Example, Segment

MANIFEST_NAME = "manifest.json"
DEFAULT_SHARD_BYTES = 128 * 2**20

_PARTIAL_NAME = ".partial"
# Rows gather in memory until they make a record batch. Larger ones cost the writer memory,
# smaller ones the reader: some 40 kB of headers for every batch that it has open.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 4096

_OBJECT = pa.struct(
    [
        pa.field("xywh", pa.list_(pa.float64(), 4), nullable=False),
        pa.field("category", pa.int64(), nullable=False),
        pa.field("area", pa.float64(), nullable=False),
        # A byte each: Arrow's own booleans are bits, which numpy cannot view.
        pa.field("is_crowd", pa.uint8(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
        pa.field("segmentation", pa.string(), nullable=False),
    ]
)
_SEGMENT = pa.struct(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("category", pa.int64(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("is_crowd", pa.uint8(), nullable=False),
    ]
)
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("objects", pa.list_(pa.field("item", _OBJECT, nullable=False)), nullable=False),
        pa.field("panoptic_png", pa.large_binary(), nullable=False),
        pa.field("segments", pa.list_(pa.field("item", _SEGMENT, nullable=False)), nullable=False),
        pa.field(
            "captions", pa.list_(pa.field("item", pa.string(), nullable=False)), nullable=False
        ),
    ]
)


class DatasetError(ValueError):
    """A data set on disk is missing, damaged, or not what its manifest says."""


class ShardInfo(BaseModel):
    """One shard, as the manifest lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^shard-\d+\.arrow$")
    num_examples: int
    num_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a data set consists of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    source: str
    """Where the examples came from, in words."""
    num_examples: int
    categories: tuple[Category, ...]
    shards: tuple[ShardInfo, ...]

    @functools.cached_property
    def digest(self) -> str:
        """Names the data set's content: sha256 of the manifest as canonical JSON."""
        return hashlib.sha256(
            json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()


# --- writing ---------------------------------------------------------------------------------


class ShardWriter:
    """Write a data set, whole or not at all.

    ``with ShardWriter(...) as writer: writer.add(example)``. Shards grow in a hidden folder
    inside the destination and are moved into place, the manifest last, when the block ends; an
    exception in it removes everything written.

    Args:
        directory: made if needed; must hold nothing else.
        categories: the classes, in the order that ``Example.category_N`` indexes; their
            instance counts are counted anew.
        source: a line for the manifest, and so part of the digest.
        shard_bytes: a shard is closed when it has grown to this size.
        overwrite: replace a data set that is there. It stays until the new one is complete.

    Raises:
        DatasetError: the directory holds a data set or other files, or is being written to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        categories: Sequence[Category],
        source: str,
        shard_bytes: int = DEFAULT_SHARD_BYTES,
        overwrite: bool = False,
    ) -> None:
        self._directory = directory
        self._categories = tuple(categories)
        self._source = source
        self._shard_bytes = shard_bytes
        self._overwrite = overwrite
        self._partial = directory / _PARTIAL_NAME
        self._undo = contextlib.ExitStack()
        self._rows: list[Example] = []
        self._rows_bytes = 0
        self._shard: _Shard | None = None
        self._shards: list[ShardInfo] = []
        self._num_examples = 0
        self._digest: str | None = None
        self._boxes_per_category = np.zeros(len(self._categories), dtype=np.int64)
        self._segments_per_category = np.zeros(len(self._categories), dtype=np.int64)

    def __enter__(self) -> Self:
        check_destination(self._directory, overwrite=self._overwrite)
        with contextlib.ExitStack() as undo:
            if not self._directory.exists():
                self._directory.mkdir(parents=True)
                undo.callback(_remove_if_empty, self._directory)
            undo.callback(os.close, _claim(self._directory))
            if self._partial.exists():
                shutil.rmtree(self._partial)  # left by a conversion that was killed
            self._partial.mkdir()
            undo.callback(shutil.rmtree, self._partial, ignore_errors=True)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._undo:
            try:
                if kind is None:
                    self._publish()
            finally:
                if self._shard is not None:
                    self._shard.abandon()

    @property
    def num_examples(self) -> int:
        return self._num_examples

    @property
    def digest(self) -> str:
        """Of the finished data set.

        Raises:
            ValueError: the block that writes it has not ended.
        """
        if self._digest is None:
            raise ValueError(f"{self._directory} is still being written: it has no digest yet")
        return self._digest

    def add(self, example: Example) -> None:
        """Append one example.

        Raises:
            ValueError: its arrays differ in length, or a category is not in the list.
        """
        self._check(example)
        counted_N = example.category_N[~example.is_crowd_N]
        np.add.at(self._boxes_per_category, counted_N, 1)
        for segment in example.segments:
            if not segment.is_crowd:
                self._segments_per_category[segment.category] += 1
        self._rows.append(example)
        self._rows_bytes += len(example.image) + len(example.panoptic_png)
        self._rows_bytes += 64 * len(example.category_N) + sum(map(len, example.segmentation_N))
        self._num_examples += 1
        if self._rows_bytes >= _BATCH_BYTES or len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def _check(self, example: Example) -> None:
        num_objects = len(example.category_N)
        lengths = [
            len(example.xywh_N4),
            len(example.area_N),
            len(example.is_crowd_N),
            len(example.annotation_id_N),
        ]
        if example.segmentation_N:
            lengths.append(len(example.segmentation_N))
        if any(length != num_objects for length in lengths):
            raise ValueError(
                f"image {example.image_id}: annotation arrays differ in length: "
                f"category {num_objects}, others {lengths}"
            )
        indices = [*example.category_N.tolist(), *(s.category for s in example.segments)]
        if any(not 0 <= index < len(self._categories) for index in indices):
            raise ValueError(
                f"image {example.image_id}: category indices must be below "
                f"{len(self._categories)}, got {sorted(set(indices))}"
            )

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._shard is None:
            name = f"shard-{len(self._shards):05d}.arrow"
            self._shard = _Shard(self._partial / name)
        self._shard.write(_batch(self._rows))
        self._rows, self._rows_bytes = [], 0
        if self._shard.num_bytes >= self._shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shards.append(self._shard.close())
            self._shard = None

    def _publish(self) -> None:
        self._flush()
        self._close_shard()
        # A data set may have boxes, a panoptic map, or both; things then stand in both.
        counts = np.where(
            self._boxes_per_category > 0, self._boxes_per_category, self._segments_per_category
        )
        manifest = Manifest(
            source=self._source,
            num_examples=self._num_examples,
            categories=tuple(
                replace(category, num_instances=int(count))
                for category, count in zip(self._categories, counts, strict=True)
            ),
            shards=tuple(self._shards),
        )
        written = self._partial / MANIFEST_NAME
        with _naming_full_disk(written), written.open("w", encoding="utf-8") as file:
            file.write(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        old_manifest = self._directory / MANIFEST_NAME
        old_manifest.unlink(missing_ok=True)  # from here on the old data set is no data set
        for path in self._directory.glob("shard-*.arrow"):
            path.unlink()
        try:
            for shard in self._shards:
                (self._partial / shard.name).rename(self._directory / shard.name)
            _sync_folder(self._directory)
            written.rename(old_manifest)
        except BaseException:
            for shard in self._shards:
                (self._directory / shard.name).unlink(missing_ok=True)
            raise
        _sync_folder(self._directory)
        self._digest = manifest.digest


def check_destination(directory: Path, *, overwrite: bool) -> None:
    """See whether a data set may be written into a folder, before the work of making one.

    Raises:
        DatasetError: it holds a data set (and ``overwrite`` is not set) or other files.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise DatasetError(f"{directory} is a file: choose a folder for the data set")
    names = {path.name for path in directory.iterdir()}
    if MANIFEST_NAME in names and not overwrite:
        raise DatasetError(
            f"{directory} already holds a data set: choose another folder, "
            "or say that it may be overwritten"
        )
    strange = sorted(
        name
        for name in names - {MANIFEST_NAME, _PARTIAL_NAME}
        if not (name.startswith("shard-") and name.endswith(".arrow"))
    )
    if strange:
        raise DatasetError(
            f"{directory} holds other files ({', '.join(strange[:3])}"
            f"{', ...' if len(strange) > 3 else ''}): choose an empty or new folder"
        )


class _Shard:
    """One Arrow file being written, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._sink = _HashingFile(path)
        self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), _SCHEMA)
        self._num_examples = 0

    @property
    def num_bytes(self) -> int:
        return self._sink.num_bytes

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self._num_examples += batch.num_rows

    def close(self) -> ShardInfo:
        self._writer.close()
        self._sink.close()
        return ShardInfo(
            name=self._name,
            num_examples=self._num_examples,
            num_bytes=self._sink.num_bytes,
            sha256=self._sink.sha256,
        )

    def abandon(self) -> None:
        # The disk may be full: the footer that Arrow writes on closing fails once more.
        with contextlib.suppress(DatasetError, pa.ArrowException):
            self._writer.close()
        with contextlib.suppress(DatasetError):
            self._sink.close()


class _HashingFile:
    """The few methods of a file that Arrow's writer calls; counts and hashes what passes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self.num_bytes = 0
        self.closed = False

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: Any) -> int:
        self._hash.update(data)
        with _naming_full_disk(self._path):
            written = self._file.write(data)
        self.num_bytes += written
        return written

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        with _naming_full_disk(self._path):
            self._file.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with _naming_full_disk(self._path), self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


def _batch(rows: Sequence[Example]) -> pa.RecordBatch:
    """Lay examples out in columns, each of them one buffer and its offsets."""
    objects = pa.StructArray.from_arrays(
        [
            pa.FixedSizeListArray.from_arrays(
                pa.array(_joined([row.xywh_N4.reshape(-1) for row in rows], np.float64)), 4
            ),
            pa.array(_joined([row.category_N for row in rows], np.int64)),
            pa.array(_joined([row.area_N for row in rows], np.float64)),
            pa.array(_joined([row.is_crowd_N for row in rows], np.uint8)),
            pa.array(_joined([row.annotation_id_N for row in rows], np.int64)),
            pa.array(
                [
                    text
                    for row in rows
                    for text in (row.segmentation_N or ("",) * len(row.category_N))
                ],
                pa.string(),
            ),
        ],
        fields=list(_OBJECT),
    )
    segments = [segment for row in rows for segment in row.segments]
    return pa.RecordBatch.from_arrays(
        [
            pa.array([row.image_id for row in rows], pa.int64()),
            pa.array([row.file_name for row in rows], pa.string()),
            pa.array([row.height for row in rows], pa.int64()),
            pa.array([row.width for row in rows], pa.int64()),
            pa.array([row.image for row in rows], pa.large_binary()),
            _lists(objects, [len(row.category_N) for row in rows], _SCHEMA.field("objects").type),
            pa.array([row.panoptic_png for row in rows], pa.large_binary()),
            _lists(
                pa.StructArray.from_arrays(
                    [
                        pa.array([segment.id for segment in segments], pa.int64()),
                        pa.array([segment.category for segment in segments], pa.int64()),
                        pa.array([segment.area for segment in segments], pa.int64()),
                        pa.array([int(segment.is_crowd) for segment in segments], pa.uint8()),
                    ],
                    fields=list(_SEGMENT),
                ),
                [len(row.segments) for row in rows],
                _SCHEMA.field("segments").type,
            ),
            _lists(
                pa.array([text for row in rows for text in row.captions], pa.string()),
                [len(row.captions) for row in rows],
                _SCHEMA.field("captions").type,
            ),
        ],
        schema=_SCHEMA,
    )


def _joined(parts: Sequence[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=dtype), *parts]).astype(dtype, copy=False)


def _lists(values: pa.Array, lengths: Sequence[int], kind: pa.DataType) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


@contextlib.contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Errors of writing to an open file do not say which file it was."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror}; make room or choose another disk, "
            "and convert again (nothing was kept)"
        ) from error


def _claim(directory: Path) -> int:
    """Hold the folder against other writers until the descriptor closes or the process ends."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise DatasetError(
            f"another process is writing a data set into {directory}: wait for it, "
            "or choose another folder"
        ) from error
    return descriptor


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # not empty: the data set is in place
        directory.rmdir()


def _sync_folder(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading ---------------------------------------------------------------------------------


class ShardDataset:
    """A data set opened for reading, by index, from any thread.

    Arrays of an example are read-only views of the mapped file.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._start_of_shard = [0, *itertools.accumulate(s.num_examples for s in manifest.shards)]
        self._shards: list[_OpenShard | None] = [None] * len(manifest.shards)
        self._opening = threading.Lock()

    @property
    def digest(self) -> str:
        """Hash of the manifest, which lists the shards' hashes."""
        return self.manifest.digest

    @property
    def categories(self) -> Sequence[Category]:
        return self.manifest.categories

    def __len__(self) -> int:
        return self.manifest.num_examples

    def __iter__(self) -> Iterator[Example]:
        return (self.example(index) for index in range(len(self)))

    def example(self, index: int) -> Example:
        """Read one example.

        Raises:
            IndexError: ``index`` is not in ``[0, len(self))``.
            DatasetError: its shard, touched for the first time, is not the one in the manifest.
        """
        if not 0 <= index < self.manifest.num_examples:
            raise IndexError(
                f"example {index} of a data set of {len(self)} ({self.path}): "
                f"indices run from 0 to {len(self) - 1}"
            )
        number = bisect.bisect_right(self._start_of_shard, index) - 1
        shard = self._shards[number] or self._open(number)
        return shard.example(index - self._start_of_shard[number])

    def verify(self) -> None:
        """Hash every shard now, instead of each when it is first read.

        Raises:
            DatasetError: a shard is not the one in the manifest.
        """
        for number in range(len(self._shards)):
            self._open(number)

    def _open(self, number: int) -> _OpenShard:
        with self._opening:
            shard = self._shards[number]
            if shard is None:
                info = self.manifest.shards[number]
                _check_hash(self.path / info.name, info)
                shard = self._shards[number] = _OpenShard(self.path / info.name)
            return shard


def open_dataset(path: Path, *, verify: bool = False) -> ShardDataset:
    """Open a data set; compare the shards' sizes with the manifest, and their hashes when read.

    Args:
        path: the folder that holds ``manifest.json``.
        verify: hash every shard now.

    Raises:
        DatasetError: there is no data set, or it is not what its manifest says.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    for info in manifest.shards:
        file = path / info.name
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            raise DatasetError(
                f"{file} is missing: the manifest lists it with {info.num_bytes} bytes; "
                "copy it again or convert the data set anew"
            ) from None
        if found != info.num_bytes:
            raise DatasetError(
                f"{file} has {found} bytes, the manifest says {info.num_bytes}: it was cut off or "
                "changed; copy it again or convert the data set anew"
            )
    dataset = ShardDataset(path, manifest)
    if verify:
        dataset.verify()
    return dataset


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST_NAME
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        what = "has no manifest.json" if path.is_dir() else "does not exist"
        raise DatasetError(
            f"{path} {what}: expected a data set made by 'rewardtune data' "
            "(a conversion that failed leaves none)"
        ) from None
    try:
        content = json.loads(text)
        version = content.get("format_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version != 1:
            raise DatasetError(
                f"{file} has format version {version}, this program reads version 1: "
                "convert the data set anew, or use the program that wrote it"
            )
        manifest = Manifest.model_validate(content)
    except (json.JSONDecodeError, ValidationError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DatasetError(
            f"{file} is no manifest of a data set ({reason}): convert the data set anew"
        ) from error
    if sum(shard.num_examples for shard in manifest.shards) != manifest.num_examples:
        raise DatasetError(
            f"{file} says {manifest.num_examples} examples, but its shards hold "
            f"{sum(shard.num_examples for shard in manifest.shards)}: convert the data set anew"
        )
    return manifest


def _check_hash(file: Path, info: ShardInfo) -> None:
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        found = "no file"
    if found != info.sha256:
        raise DatasetError(
            f"{file} is not the shard that the manifest lists: expected sha256 {info.sha256}, "
            f"found {found}; copy it again or convert the data set anew"
        )


class _OpenShard:
    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        # All batches at once, under the caller's lock: Arrow does not say that its reader may
        # be shared by threads.
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._columns = [_Columns.of(batch) for batch in batches]
        self._start_of_batch = [0, *itertools.accumulate(batch.num_rows for batch in batches)]

    def example(self, row: int) -> Example:
        number = bisect.bisect_right(self._start_of_batch, row) - 1
        return self._columns[number].example(row - self._start_of_batch[number])


@dataclass(frozen=True, slots=True)
class _Texts:
    """A column of strings or bytes: one buffer, cut at offsets."""

    data: memoryview
    offsets: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, array: pa.Array, offset_type: type[np.generic]) -> _Texts:
        _, offsets, data = array.buffers()
        return cls(
            data=memoryview(data) if data is not None else memoryview(b""),
            offsets=np.frombuffer(offsets, dtype=offset_type)[: len(array) + 1],
        )

    def bytes_at(self, row: int) -> bytes:
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]])

    def text_at(self, row: int) -> str:
        return str(self.data[self.offsets[row] : self.offsets[row + 1]], "utf-8")

    def texts(self, start: int, stop: int) -> tuple[str, ...]:
        cuts = self.offsets[start : stop + 1].tolist()
        return tuple(str(self.data[a:b], "utf-8") for a, b in itertools.pairwise(cuts))


@dataclass(frozen=True, slots=True)
class _Columns:
    """A record batch as numpy views, from which a row is read in microseconds.

    Arrow's own access by row (``slice`` and ``to_pylist``) takes three times as long, and
    makes lists where codecs want arrays.
    """

    image_id_R: NDArray[np.int64]
    file_name: _Texts
    height_R: NDArray[np.int64]
    width_R: NDArray[np.int64]
    image: _Texts
    object_cuts: NDArray[np.int32]
    xywh: NDArray[np.float64]
    category: NDArray[np.int64]
    area: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]
    annotation_id: NDArray[np.int64]
    segmentation: _Texts
    panoptic_png: _Texts
    segment_cuts: NDArray[np.int32]
    segment_fields: tuple[NDArray[Any], ...]
    caption_cuts: NDArray[np.int32]
    captions: _Texts

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Columns:
        column = {name: batch.column(name) for name in batch.schema.names}
        objects, segments = column["objects"].values, column["segments"].values
        return cls(
            image_id_R=column["image_id"].to_numpy(),
            file_name=_Texts.of(column["file_name"], np.int32),
            height_R=column["height"].to_numpy(),
            width_R=column["width"].to_numpy(),
            image=_Texts.of(column["image"], np.int64),
            object_cuts=column["objects"].offsets.to_numpy(),
            xywh=objects.field("xywh").values.to_numpy().reshape(-1, 4),
            category=objects.field("category").to_numpy(),
            area=objects.field("area").to_numpy(),
            is_crowd=objects.field("is_crowd").to_numpy().view(np.bool_),
            annotation_id=objects.field("id").to_numpy(),
            segmentation=_Texts.of(objects.field("segmentation"), np.int32),
            panoptic_png=_Texts.of(column["panoptic_png"], np.int64),
            segment_cuts=column["segments"].offsets.to_numpy(),
            segment_fields=tuple(
                segments.field(name).to_numpy() for name in ("id", "category", "area", "is_crowd")
            ),
            caption_cuts=column["captions"].offsets.to_numpy(),
            captions=_Texts.of(column["captions"].values, np.int32),
        )

    def example(self, row: int) -> Example:
        start, stop = self.object_cuts[row], self.object_cuts[row + 1]
        return Example(
            image_id=int(self.image_id_R[row]),
            file_name=self.file_name.text_at(row),
            height=int(self.height_R[row]),
            width=int(self.width_R[row]),
            image=self.image.bytes_at(row),
            xywh_N4=self.xywh[start:stop],
            category_N=self.category[start:stop],
            area_N=self.area[start:stop],
            is_crowd_N=self.is_crowd[start:stop],
            annotation_id_N=self.annotation_id[start:stop],
            segmentation_N=self.segmentation.texts(start, stop),
            panoptic_png=self.panoptic_png.bytes_at(row),
            segments=self._segments(row),
            captions=self.captions.texts(self.caption_cuts[row], self.caption_cuts[row + 1]),
        )

    def _segments(self, row: int) -> tuple[Segment, ...]:
        start, stop = self.segment_cuts[row], self.segment_cuts[row + 1]
        if start == stop:
            return ()
        fields = (values[start:stop].tolist() for values in self.segment_fields)
        return tuple(
            Segment(id=number, category=category, area=area, is_crowd=bool(is_crowd))
            for number, category, area, is_crowd in zip(*fields, strict=True)
        )
