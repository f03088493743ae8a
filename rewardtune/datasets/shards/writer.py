"""Writing a data set, whole or not at all.

It is a folder of ``shard-NNNNN.arrow`` files and ``manifest.json``, which is written last: where
there is no manifest there is no data set.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.shards.columns import batch_of
from rewardtune.datasets.shards.file import ShardFile, naming_full_disk
from rewardtune.datasets.shards.manifest import MANIFEST_NAME, DatasetError, Manifest, ShardInfo

DEFAULT_SHARD_BYTES = 128 * 2**20

_PARTIAL_NAME = ".partial"
# Rows gather in memory until they make a record batch. Larger ones cost the writer memory,
# smaller ones the reader: some 40 kB of headers for every batch that it has open.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 4096


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
        self._shard: ShardFile | None = None
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
            self._shard = ShardFile(self._partial / name)
        self._shard.write(batch_of(self._rows))
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
        with naming_full_disk(written), written.open("w", encoding="utf-8") as file:
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
