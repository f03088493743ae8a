"""Checkpoints: what a run needs to go on, written so that half of one is never taken for one.

    RUN/checkpoints/checkpoint-00000100/
        weights.safetensors      one file per named group of tensors, chosen by the learner:
        optimizer.safetensors    float32 weights, optimizer state, behaviour weights ...
        state.json               consumed batches, ordinals set aside, digests, history ...
        manifest.json            size and SHA-256 of every other file; written last

A checkpoint exists if and only if its manifest does. On a file system the whole directory also
appears at once, by rename; the manifest covers stores that have none.
"""

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from rewardtune.layers.finite import not_finite
from rewardtune.layers.weight_file import sync

_MANIFEST = "manifest.json"
_STATE = "state.json"
_FORMAT = 1
_DIRECTORY = re.compile(r"checkpoint-(\d{8,})")
_UNFINISHED = ".unfinished-"


class _Written(BaseModel):
    bytes: int
    sha256: str


class _Manifest(BaseModel):
    format: int
    step: int
    files: dict[str, _Written]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or cannot be read as it was written."""


class CheckpointIncomplete(CheckpointError):
    """A directory without manifest: its writer never finished, so it is no checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint as it was saved, every byte checked against its hash."""

    path: Path

    step: int

    files: dict[str, dict[str, Tensor]]
    """Tensors on the CPU, by the names given to ``save_checkpoint``."""

    state: dict[str, Any]
    """What JSON makes of the state that was saved: tuples have become lists."""


def save_checkpoint(
    root: Path, step: int, files: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write one checkpoint durably, all of it or nothing.

    Args:
        root: directory of all checkpoints of the run; created if missing.
        step: batches consumed; names the checkpoint. One already there for this step, such as
            a damaged one that resume skipped, is replaced.
        files: file name without suffix -> tensors by name, on any device and of any dtype.
        state: anything that JSON can hold.

    Returns:
        The checkpoint's directory.

    Raises:
        CheckpointError: the disk is full or refuses the write. What was written is removed and
            earlier checkpoints are untouched.
        ValueError: a file name is not made of letters, digits, ``-`` and ``_``.
    """
    if odd := [name for name in files if not re.fullmatch(r"[\w-]+", name)]:
        raise ValueError(f"checkpoint files need plain names of letters, digits, - and _: {odd}")
    final = root / f"checkpoint-{step:08d}"
    unfinished = root / f"{_UNFINISHED}{final.name}-{secrets.token_hex(4)}"
    state_bytes = json.dumps(state, indent=1).encode()
    try:
        try:
            unfinished.mkdir(parents=True)
            for name, tensors in files.items():
                _write_tensors(unfinished / f"{name}.safetensors", tensors)
            (unfinished / _STATE).write_bytes(state_bytes)
            written = {path.name: _written(path) for path in sorted(unfinished.iterdir())}
            sync(unfinished)
            manifest = _Manifest(format=_FORMAT, step=step, files=written)
            (unfinished / _MANIFEST).write_text(manifest.model_dump_json(indent=1))
            sync(unfinished / _MANIFEST)
            sync(unfinished)
            if final.exists():
                _remove(final)
            unfinished.rename(final)
            sync(root)
        except (OSError, SafetensorError) as error:
            tensor_bytes = sum(t.nbytes for tensors in files.values() for t in tensors.values())
            raise CheckpointError(
                f"cannot write checkpoint {final}, which needs {tensor_bytes + len(state_bytes)} "
                f"bytes: {error}. Earlier checkpoints are untouched; make room and resume"
            ) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, refusing it if a single byte is not as it was written.

    Raises:
        CheckpointIncomplete: it has no manifest.
        CheckpointError: a file is missing, truncated or altered, or a number in it is not finite;
            the message names it.
    """
    manifest = _read_manifest(path)
    for name, written in manifest.files.items():
        _check(path / name, written)
    files = {
        Path(name).stem: safetensors.torch.load_file(path / name)
        for name in manifest.files
        if name.endswith(".safetensors")
    }
    for file, tensors in files.items():
        if (odd := not_finite(tensors)) is not None:
            raise CheckpointError(
                f"damaged checkpoint {path}: {file}.safetensors has numbers that are not finite in "
                f"'{odd}'"
            )
    return Checkpoint(
        path=path,
        step=manifest.step,
        files=files,
        state=json.loads((path / _STATE).read_bytes()),
    )


def latest_checkpoint(root: Path, on_damaged: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that reads well, or None if there never was one.

    Args:
        root: directory of all checkpoints of the run; need not exist.
        on_damaged: told, in one line, about each newer one that is skipped.

    Raises:
        CheckpointError: there are checkpoints, but all are damaged. Starting such a run afresh
            is for a person to decide.
    """
    damaged = []
    for step in reversed(_directories(root)):
        path = root / f"checkpoint-{step:08d}"
        try:
            return load_checkpoint(path)
        except CheckpointIncomplete as error:
            on_damaged(f"skipped: {error}")
        except CheckpointError as error:
            on_damaged(f"skipped: {error}")
            damaged.append(path.name)
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {root} is damaged ({', '.join(damaged)}): restore one from a "
            f"backup, or delete them to start the run afresh"
        )
    return None


def checkpoint_steps(root: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending; their contents are not read."""
    return [s for s in _directories(root) if (root / f"checkpoint-{s:08d}" / _MANIFEST).exists()]


def prune(root: Path, *, keep_last: int, keep: Collection[int] = ()) -> list[Path]:
    """Delete complete checkpoints, except the newest ``keep_last`` and the steps in ``keep``.

    Args:
        root: directory of all checkpoints of the run.
        keep_last: at least 1; with 2, one that is damaged later costs no more than its steps.
        keep: steps that stay whatever their age, such as the best by holdout metric.

    Returns:
        The directories that were deleted, oldest first.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last must be at least 1, got {keep_last}")
    old = [step for step in checkpoint_steps(root)[:-keep_last] if step not in keep]
    paths = [root / f"checkpoint-{step:08d}" for step in old]
    for path in paths:
        _remove(path)
    return paths


def clear_unfinished(root: Path) -> list[Path]:
    """Delete what killed writers left behind.

    For the learner's start, once it holds the newest term: a zombie that is still writing then
    fails, as it should. Readers of a live run must not call this.
    """
    complete = checkpoint_steps(root)
    headless = [step for step in _directories(root) if step not in complete]
    leftovers = sorted(root.glob(f"{_UNFINISHED}*"))
    leftovers += [root / f"checkpoint-{step:08d}" for step in headless]
    for path in leftovers:
        shutil.rmtree(path)
    return leftovers


def _directories(root: Path) -> list[int]:
    paths = [path for path in root.glob("checkpoint-*") if path.is_dir()]
    matches = [_DIRECTORY.fullmatch(path.name) for path in paths]
    return sorted(int(match[1]) for match in matches if match)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    stored: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        # Safetensors refuses tied weights: two names for the same memory.
        stored[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    safetensors.torch.save_file(stored, path)


def _written(path: Path) -> _Written:
    sync(path)
    return _Written(bytes=path.stat().st_size, sha256=_sha256(path))


def _read_manifest(path: Path) -> _Manifest:
    try:
        manifest = _Manifest.model_validate_json((path / _MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        reason = f"it has no {_MANIFEST}" if path.is_dir() else "there is no such directory"
        raise CheckpointIncomplete(f"{path} is no complete checkpoint: {reason}") from None
    except OSError as error:
        raise CheckpointError(f"damaged checkpoint {path}: {_MANIFEST}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise CheckpointError(f"damaged checkpoint {path}: {_MANIFEST}: {first}") from error
    if manifest.format != _FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {manifest.format}, but this version of rewardtune "
            f"reads format {_FORMAT}: read it with the version that wrote it"
        )
    return manifest


def _check(path: Path, written: _Written) -> None:
    damaged = f"damaged checkpoint {path.parent}: {path.name}"
    try:
        found = path.stat().st_size
        is_intact = found == written.bytes and _sha256(path) == written.sha256
    except FileNotFoundError:
        raise CheckpointError(f"{damaged} is missing") from None
    except OSError as error:
        raise CheckpointError(f"{damaged} cannot be read: {error}") from error
    if found != written.bytes:
        raise CheckpointError(f"{damaged} has {found} bytes instead of {written.bytes}")
    if not is_intact:
        raise CheckpointError(f"{damaged} has not the contents that were written (SHA-256 differs)")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    # Manifest first: whoever dies here leaves no checkpoint with parts missing.
    (path / _MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(path)
