"""Weights between processes of one machine, as files of a folder: where there is no Ray.

    FOLDER/term-00000002               the highest one is the term; empty
    FOLDER/00000002-00000005.weights   term and version; the buffer, nothing else
    FOLDER/00000002-00000005.json      its manifest: appears last, goes first
    FOLDER/spare-*                     retired buffers to be written again
    FOLDER/unfinished-*                a writer is at it, or died over it

What has no manifest is not published. Nothing is synced to disk: after a power cut the digest
finds what was lost, and the learner publishes anew from its checkpoint. Locks (flock) say who
still reads: a shared one on the data for as long as a view of it lives, a shared one on the
manifest for as long as a version is pinned. The kernel drops those of a process that dies. A
retired file that nobody reads is written again, since memory the kernel has already found for a
file takes ten times less to fill; so readers must be on the writer's machine. The folder is best
on a disk: its cached pages are large, while those of /dev/shm are 4 KiB each and take two to four
times as long to write and to map.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rewardtune.records import (
    CanaryLogProbs,
    PackedWeights,
    Published,
    WeightBuffer,
    WeightManifest,
)
from rewardtune.records.weights import UncheckedWeights, contiguous, manifest_of
from rewardtune.transport.weights.weight_manifest import manifest_from_json, manifest_to_json
from rewardtune.transport.weights.weight_store import (
    DamagedWeights,
    checked,
    copied_digest,
    found_digest,
    stale_term,
    weights_not_found,
    with_digest,
)

_MANIFEST = re.compile(r"(\d{8,})-(\d{8,})\.json")
_TERM = re.compile(r"term-(\d{8,})")
_MAX_SPARES = 2


class FileWeightStore:
    """Implements ``WeightStore``. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        """Raises:
        OSError: the folder cannot be made.
        """
        self._directory = directory
        self._term = -1
        self._pins: dict[Published, list[int]] = {}
        self._maps: dict[int, mmap.mmap] = {}
        """Of files that this object has written over, by inode, which a map keeps in use."""
        directory.mkdir(parents=True, exist_ok=True)

    def publish(
        self, published: Published, weights: PackedWeights, *, canary: CanaryLogProbs | None = None
    ) -> None:
        """Raises:
        StaleTerm: a higher term has published already.
        OSError: the disk is full, say; nothing is published then.
        """
        self._claim(published)
        buffer = contiguous(weights)
        self._term = published.term
        if self._holds(published, buffer):
            return
        data, digest = self._write(buffer)
        manifest = manifest_of(published, buffer, digest=digest, canary=canary)
        text = self._unfinished_path()
        text.write_text(manifest_to_json(manifest))
        # A new learner may have come while these were written.
        self._claim(published)
        data.rename(self._data_path(published))
        text.rename(self._manifest_path(published))

    def fetch(self, published: Published) -> PackedWeights:
        return checked(self.fetch_unchecked(published))

    def fetch_unchecked(self, published: Published) -> UncheckedWeights:
        manifest = self.manifest(published)
        path = self._data_path(published)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._not_found(published) from None
        try:
            # Held by the map, which keeps a copy of the descriptor, until its last view is gone.
            is_locked = _lock(file, fcntl.LOCK_SH)
            if not is_locked or not self._manifest_path(published).exists():
                raise self._not_found(published)  # retired in between, perhaps written again
            found = os.fstat(file).st_size
            if found != manifest.num_bytes:
                raise DamagedWeights(
                    f"{path} has {found} bytes, but its manifest says {manifest.num_bytes}: it was "
                    f"cut off; restart the learner, which publishes anew"
                )
            # Mapping page by page, as they are touched, takes longer than mapping them all.
            data_B = np.frombuffer(
                mmap.mmap(
                    file, found, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ
                ),
                np.uint8,
            )
        finally:
            os.close(file)
        try:
            return UncheckedWeights(
                data_B,
                manifest.tensors,
                digest=manifest.digest,
                damaged=lambda found: DamagedWeights(
                    f"{path} has digest {found}, but its manifest says {manifest.digest}: it was "
                    f"changed; restart the learner, which publishes anew"
                ),
            )
        except ValueError as error:
            raise DamagedWeights(f"{self._manifest_path(published)} is damaged: {error}") from None

    def manifest(self, published: Published) -> WeightManifest:
        path = self._manifest_path(published)
        if published.term < self._newest_term():
            raise self._not_found(published)
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise self._not_found(published) from None
        try:
            manifest = manifest_from_json(text)
        except ValueError as error:
            raise DamagedWeights(
                f"{path} is no manifest of weights ({error}); restart the learner, which publishes "
                f"anew"
            ) from None
        if manifest.published != published:
            raise DamagedWeights(f"{path} names weights {manifest.published}, not {published}")
        return manifest

    def retire(self, *, before_version: int) -> None:
        for published in self._published():
            if published.term == self._term and published.policy_version < before_version:
                self._forget(published)

    def pin(self, published: Published) -> None:
        path = self._manifest_path(published)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._not_found(published) from None
        if not _lock(file, fcntl.LOCK_SH) or not path.exists():
            os.close(file)
            raise self._not_found(published)
        self._pins.setdefault(published, []).append(file)

    def unpin(self, published: Published) -> None:
        files = self._pins.get(published)
        if files:
            os.close(files.pop())
        if not files:
            self._pins.pop(published, None)

    def reassert(self) -> None:
        """Files stay."""

    def _claim(self, published: Published) -> None:
        newest = self._newest_term()
        if published.term < newest:
            raise stale_term(published, newest=newest)
        if published.term > newest:
            (self._directory / f"term-{published.term:08d}").touch()
            for old in self._published():
                if old.term < published.term:
                    self._manifest_path(old).unlink(missing_ok=True)
                    self._recycle(old)
            for left in self._directory.glob("unfinished-*"):
                left.unlink(missing_ok=True)

    def _holds(self, published: Published, buffer: WeightBuffer) -> bool:
        try:
            return self.manifest(published).digest == found_digest(buffer)
        except (LookupError, DamagedWeights):
            return False

    def _newest_term(self) -> int:
        terms = (_TERM.fullmatch(name) for name in os.listdir(self._directory))
        return max((int(found[1]) for found in terms if found), default=-1)

    def _published(self) -> list[Published]:
        names = (_MANIFEST.fullmatch(name) for name in os.listdir(self._directory))
        return sorted(Published(int(found[1]), int(found[2])) for found in names if found)

    def _forget(self, published: Published) -> None:
        path = self._manifest_path(published)
        with _opened(path) as file:
            if file is None or not _lock(file, fcntl.LOCK_EX):
                return  # pinned: a later call will find it
            path.unlink(missing_ok=True)
        self._recycle(published)

    def _recycle(self, published: Published) -> None:
        data = self._data_path(published)
        spares = list(self._directory.glob("spare-*"))
        try:
            if len(spares) < _MAX_SPARES:
                data.rename(self._directory / f"spare-{secrets.token_hex(4)}")
            else:
                data.unlink()
        except FileNotFoundError:
            return  # its writer died between manifest and data, or another term was faster

    def _write(self, buffer: WeightBuffer) -> tuple[Path, str]:
        """A file of these bytes that has no name yet that readers know, and their digest."""
        self._unmap_removed()
        path = self._unfinished_path()
        for spare in self._directory.glob("spare-*"):
            with contextlib.suppress(FileNotFoundError):  # somebody else took it
                spare.rename(path)
                digest = self._overwrite(path, buffer)
                if digest is not None:
                    return path, digest
                path.unlink()
        with path.open("wb") as file:
            _, digest = with_digest(buffer, lambda: file.write(buffer.data_B.data))
        return path, digest

    def _overwrite(self, path: Path, buffer: WeightBuffer) -> str | None:
        """Write over a file that nobody reads; None if somebody does, or its size is another.

        Copying into a map takes two thirds of what ``write`` takes, but mapping it anew each time
        would take as long again: the kernel finds its pages one by one. So maps are kept.
        """
        with path.open("r+b") as file:
            found, size = os.fstat(file.fileno()), len(buffer.data_B)
            # Touching what lies beyond the end of a file would kill the process.
            if found.st_size != size or not _lock(file.fileno(), fcntl.LOCK_EX):
                return None
            if len(self._maps.get(found.st_ino, b"")) != size:
                # The map keeps a copy of its descriptor, and with it any lock: not this one.
                with path.open("r+b") as unlocked:
                    self._maps[found.st_ino] = mmap.mmap(unlocked.fileno(), size)
            return copied_digest(buffer, np.frombuffer(self._maps[found.st_ino], np.uint8))

    def _unmap_removed(self) -> None:
        """Let go of files whose last name is gone: their space is given back only then."""
        with os.scandir(self._directory) as entries:
            there = {entry.inode() for entry in entries}
        self._maps = {inode: each for inode, each in self._maps.items() if inode in there}

    def _unfinished_path(self) -> Path:
        return self._directory / f"unfinished-{secrets.token_hex(4)}"

    def _manifest_path(self, published: Published) -> Path:
        return self._directory / f"{published.term:08d}-{published.policy_version:08d}.json"

    def _data_path(self, published: Published) -> Path:
        return self._manifest_path(published).with_suffix(".weights")

    def _not_found(self, published: Published) -> LookupError:
        return weights_not_found(published, self._published())


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)
