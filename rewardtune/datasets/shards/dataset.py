"""Data sets on disk: Arrow shards, memory-mapped, and a manifest that vouches for them.

``shard_writer`` writes them.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from rewardtune.datasets.example import Category, Example
from rewardtune.datasets.shards.columns import Columns
from rewardtune.datasets.shards.manifest import DatasetError, Manifest, ShardInfo, read_manifest


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
    manifest = read_manifest(path)
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
        self._columns = [Columns.of(batch) for batch in batches]
        self._start_of_batch = [0, *itertools.accumulate(batch.num_rows for batch in batches)]

    def example(self, row: int) -> Example:
        number = bisect.bisect_right(self._start_of_batch, row) - 1
        return self._columns[number].example(row - self._start_of_batch[number])
