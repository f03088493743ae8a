"""A policy as one file: weights, sizes, and what its tokens mean.

The file is safetensors, weights in float32 under their dotted names. Its metadata has one
entry, ``rewardtune``: JSON with ``format``, ``architecture``, ``config``, ``vocabulary``,
``provenance`` and ``digest``, which is of all the others and of the weights. Files of before have
no digest and are read without.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewardtune.layers.finite import not_finite
from rewardtune.layers.weight_file import (
    METADATA_KEY,
    content_digest,
    stored_tensors,
    write_weights,
)
from rewardtune.policies.find import OURS, is_kind, policy_class
from rewardtune.policies.policy import Policy
from rewardtune.shipped import find_file

_FORMAT = 1
_NUM_SHOWN = 60


class PolicyFileError(ValueError):
    """A policy file cannot be written, read, or used for this task; one line that names it."""


class _Metadata(BaseModel):
    # A digest whose name is damaged must not pass for none.
    model_config = ConfigDict(extra="forbid")

    format: int
    architecture: str
    config: dict[str, Any]
    vocabulary: dict[str, Any]
    provenance: dict[str, Any]
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    policy: Policy
    """On the CPU, in float32."""
    vocabulary: dict[str, Any]
    """What each token means, as the task described it."""
    provenance: dict[str, Any]
    """Where the weights come from: config, digests."""


def save_policy(
    path: Path,
    policy: Policy,
    *,
    vocabulary: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> None:
    """Write a policy file durably: all of it appears at once, or nothing does.

    Args:
        path: replaced if it is there; its folder is created if missing.
        policy: on any device, in any dtype; stored as float32.
        vocabulary: any JSON, such as the task's ``vocabulary.describe()``.
        provenance: any JSON, such as the run's config and digests.

    Raises:
        PolicyFileError: the disk is full or refuses the write; what was there is untouched.
    """
    metadata = {
        "format": _FORMAT,
        "architecture": policy.kind,
        "config": policy.config.model_dump(mode="json"),
        "vocabulary": vocabulary,
        "provenance": provenance,
    }
    tensors = stored_tensors(policy.tensors())
    digest = content_digest(json.loads(json.dumps(metadata)), tensors)
    text = json.dumps({**metadata, "digest": digest}, sort_keys=True)
    try:
        write_weights(path, tensors, metadata=text)
    except OSError as error:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values()) + len(text)
        raise PolicyFileError(
            f"cannot write policy {path}, which needs {num_bytes} bytes: {error}. Make room or "
            f"choose another folder; nothing was changed"
        ) from error


def load_policy(path: Path) -> LoadedPolicy:
    """Read a policy file.

    Neither reads nor advances torch's random numbers.

    Args:
        path: as ``save_policy``, and so ``pretrain`` and ``tune``, wrote it.

    Raises:
        PolicyFileError: there is no such file; it is truncated or damaged, in whatever byte; it is
            no policy, or one of another version, or of a class that is not here; a weight is not
            finite.
    """
    path = find_file(path)
    _check_length(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = _parse(path, file.metadata() or {})
            # Cloned out of the mapped file, which others may overwrite in place.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PolicyFileError(f"policy {path} is damaged: {_line(error)}") from error
    _check_digest(path, metadata, tensors)
    try:
        kind = policy_class(metadata.architecture)
    except ValueError as error:  # of a class from outside, which is not here
        raise PolicyFileError(f"policy {path}: {error}") from error
    try:
        policy = kind.build(metadata.config)
    except ValidationError as error:
        raise PolicyFileError(f"policy {path} is damaged: config: {_first(error)}") from error
    _check_tensors(path, tensors, policy)
    if (name := not_finite(tensors)) is not None:
        raise PolicyFileError(
            f"policy {path} has numbers that are not finite in '{name}': the run that wrote it "
            "diverged, use one of its earlier checkpoints"
        )
    policy.fill(tensors)
    return LoadedPolicy(policy, metadata.vocabulary, metadata.provenance)


def policy_digest(path: Path) -> str:
    """Hex SHA-256 of a policy file.

    Raises:
        PolicyFileError: there is no such file.
    """
    try:
        with find_file(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def check_vocabulary(found: Mapping[str, Any], needed: Mapping[str, Any], path: Path) -> None:
    """Refuse a policy whose tokens mean something else than the task's.

    Args:
        found: the policy's vocabulary.
        needed: the task's.
        path: of the policy, for the message.

    Raises:
        PolicyFileError: they differ; the message says in what.
    """
    if found == needed:
        return
    task = needed.get("task", "this task")
    raise PolicyFileError(
        f"policy {path} speaks other tokens than task '{task}' needs "
        f"({differences(found, needed)}): set policy.checkpoint to one trained for '{task}' with "
        f"these settings and classes, or pretrain from this one first"
    )


def differences(found: Mapping[str, Any], needed: Mapping[str, Any]) -> str:
    """What two vocabularies differ in, for an error message."""
    return ", ".join(
        _difference(key, found.get(key), needed.get(key))
        for key in sorted(found.keys() | needed.keys())
        if found.get(key) != needed.get(key)
    )


def _difference(key: str, found: Any, needed: Any) -> str:
    if isinstance(found, list) and isinstance(needed, list):
        if len(found) != len(needed):
            return f"{key} has {len(found)} entries instead of {len(needed)}"
        index = next(i for i, entry in enumerate(found) if entry != needed[i])
        return _difference(f"{key}[{index}]", found[index], needed[index])
    return f"{key} is {_shown(found)} instead of {_shown(needed)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _NUM_SHOWN else f"{text[:_NUM_SHOWN]}..."


def _check_length(path: Path) -> None:
    """Tell a truncated file from one that is something else; safetensors says neither."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if size >= 9 and file.read(1) != b"{":
                raise PolicyFileError(f"{path} is no policy: it is not a safetensors file")
            file.seek(8)
            header = file.read(header_size) if size >= 8 + header_size else b""
    except OSError as error:
        raise _unreadable(path, error) from error
    if not header:
        raise PolicyFileError(f"policy {path} is truncated: its header ends after {size} bytes")
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for n, entry in entries.items() if n != "__metadata__"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise PolicyFileError(f"policy {path} is damaged: its header is no valid JSON") from error
    needed = 8 + header_size + max(ends, default=0)
    if size < needed:
        raise PolicyFileError(f"policy {path} is truncated: it has {size} of its {needed} bytes")


def _parse(path: Path, metadata: Mapping[str, str]) -> _Metadata:
    if METADATA_KEY not in metadata:
        raise PolicyFileError(
            f"{path} is no policy: it is a safetensors file, but not one of rewardtune's"
        )
    try:
        parsed = _Metadata.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        raise PolicyFileError(f"policy {path} is damaged: metadata: {_first(error)}") from error
    if parsed.format != _FORMAT or not is_kind(parsed.architecture):
        raise PolicyFileError(
            f"policy {path} is '{parsed.architecture}' in format {parsed.format}, but this "
            f"version of rewardtune reads {', '.join(OURS)} in format {_FORMAT}: use the version "
            f"that wrote it"
        )
    return parsed


def _check_digest(path: Path, metadata: _Metadata, tensors: Mapping[str, Tensor]) -> None:
    """Before a network of the sizes that it tells is built."""
    if metadata.digest is None:
        return
    found = content_digest(metadata.model_dump(exclude={"digest"}), tensors)
    if found != metadata.digest:
        raise PolicyFileError(
            f"policy {path} is damaged: it does not hold what was written (SHA-256 differs): copy "
            "it again"
        )


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], policy: Policy) -> None:
    needed = policy.tensors()
    if odd := sorted(needed.keys() ^ tensors.keys()):
        side = "lacks" if odd[0] in needed else "has an unknown"
        raise PolicyFileError(f"policy {path} is damaged: it {side} '{odd[0]}'")
    for name, tensor in tensors.items():
        if tensor.shape != needed[name].shape or tensor.dtype != torch.float32:
            raise PolicyFileError(
                f"policy {path} is damaged: '{name}' is {tensor.dtype} {list(tensor.shape)} "
                f"instead of torch.float32 {list(needed[name].shape)}"
            )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return " ".join([".".join(map(str, first["loc"])), first["msg"]]).strip()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _unreadable(path: Path, error: OSError) -> PolicyFileError:
    if isinstance(error, FileNotFoundError):
        return PolicyFileError(f"policy {path} not found: check policy.checkpoint")
    return PolicyFileError(f"policy {path} cannot be read: {error}")
