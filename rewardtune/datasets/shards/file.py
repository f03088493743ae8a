"""One shard being written."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from rewardtune.datasets.shards.columns import SCHEMA
from rewardtune.datasets.shards.manifest import DatasetError, ShardInfo


class ShardFile:
    """One Arrow file being written, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._sink = _HashingFile(path)
        self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), SCHEMA)
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
        with naming_full_disk(self._path):
            written = self._file.write(data)
        self.num_bytes += written
        return written

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        with naming_full_disk(self._path):
            self._file.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            with naming_full_disk(self._path), self._file:
                self._file.flush()
                os.fsync(self._file.fileno())


@contextlib.contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Errors of writing to an open file do not say which file it was."""
    try:
        yield
    except OSError as error:
        raise DatasetError(
            f"cannot write {path}: {error.strerror}; make room or choose another disk, "
            "and convert again (nothing was kept)"
        ) from error
