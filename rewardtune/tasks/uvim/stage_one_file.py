"""A stage I as one file, which all processes of a machine read into one piece of memory.

The file is safetensors under our dotted names, with one entry of metadata, ``rewardtune``: JSON
with ``format``, ``architecture``, ``config``, ``class_names``, ``digest`` and ``provenance``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewardtune.layers.finite import not_finite
from rewardtune.layers.initialize import sizes_only
from rewardtune.layers.weight_file import METADATA_KEY, stored_tensors, write_weights
from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.stage_one import StageOne

_FORMAT = 1
_ARCHITECTURE = "uvim_stage_one"


class StageOneFileError(ValueError):
    """A stage-I file cannot be written or read; one line that names it."""


class _Metadata(BaseModel):
    format: int
    architecture: str
    config: StageOneConfig
    class_names: tuple[str, ...] | None
    digest: str
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LoadedStageOne:
    network: StageOne
    """On the CPU; its weights are the mapped file: not to be written to."""
    class_names: tuple[str, ...] | None
    """What the classes of a panoptic stage I are called, void left out; None: nobody said."""
    digest: str
    """Hash of the weights: what their codes mean."""
    provenance: dict[str, Any]


def save_stage_one(
    path: Path,
    network: StageOne,
    *,
    class_names: Sequence[str] | None,
    provenance: Mapping[str, Any],
) -> None:
    """Write a stage-I file durably: all of it appears at once, or nothing does.

    Raises:
        StageOneFileError: the disk is full or refuses the write; what was there is untouched.
    """
    tensors = stored_tensors(network.state_dict())
    metadata = _Metadata(
        format=_FORMAT,
        architecture=_ARCHITECTURE,
        config=network.config,
        class_names=None if class_names is None else tuple(class_names),
        digest=_digest(tensors),
        provenance=dict(provenance),
    )
    text = json.dumps(metadata.model_dump(mode="json"), sort_keys=True)
    try:
        write_weights(path, tensors, metadata=text)
    except OSError as error:
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        raise StageOneFileError(
            f"cannot write stage I {path}, which needs {num_bytes} bytes: {error}. Make room or "
            f"choose another folder; nothing was changed"
        ) from error


def load_stage_one(path: Path) -> LoadedStageOne:
    """Map a stage-I file into memory; nothing is copied.

    Raises:
        StageOneFileError: there is no such file; it is truncated or damaged; it is no stage I; a
            weight is not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = _parse(path, file.metadata() or {})
            # Not cloned: pages that nobody writes to are shared by all who map the file.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise StageOneFileError(
            f"stage I {path} not found: set task_options.stage_one to a file that 'rewardtune "
            f"pretrain' or 'rewardtune import-checkpoint' wrote"
        ) from None
    except (OSError, SafetensorError) as error:
        raise StageOneFileError(f"stage I {path} is damaged: {error}") from error
    with sizes_only():
        network = StageOne(metadata.config)
    needed = network.state_dict()
    if odd := sorted(needed.keys() ^ tensors.keys()):
        side = "lacks" if odd[0] in needed else "has an unknown"
        raise StageOneFileError(f"stage I {path} is damaged: it {side} '{odd[0]}'")
    for name, tensor in tensors.items():
        if tensor.shape != needed[name].shape:
            raise StageOneFileError(
                f"stage I {path} is damaged: '{name}' is {list(tensor.shape)} instead of "
                f"{list(needed[name].shape)}"
            )
    if _digest(tensors) != metadata.digest:
        raise StageOneFileError(
            f"stage I {path} is damaged: it does not hold the weights that were written (SHA-256 "
            "differs): copy it again"
        )
    if (name := not_finite(tensors)) is not None:
        raise StageOneFileError(
            f"stage I {path} has numbers that are not finite in '{name}': the run that wrote it "
            "diverged, use one of its earlier checkpoints"
        )
    network.load_state_dict(tensors, assign=True)
    return LoadedStageOne(
        network=network.eval().requires_grad_(False),
        class_names=metadata.class_names,
        digest=metadata.digest,
        provenance=metadata.provenance,
    )


def _parse(path: Path, metadata: Mapping[str, str]) -> _Metadata:
    what = json.loads(metadata.get(METADATA_KEY, "{}"))
    if what.get("architecture") != _ARCHITECTURE:
        found = what.get("architecture", "not one of rewardtune's")
        raise StageOneFileError(f"{path} is no stage I but {found}: name a stage-I file")
    if what.get("format") != _FORMAT:
        raise StageOneFileError(
            f"stage I {path} has format {what.get('format')}, this version reads {_FORMAT}: use "
            f"the version that wrote it"
        )
    try:
        return _Metadata.model_validate(what)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise StageOneFileError(f"stage I {path} is damaged: {where}: {first['msg']}") from error


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
