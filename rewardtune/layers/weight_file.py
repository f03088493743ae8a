"""Weights of a network as one safetensors file, of which all appears at once or nothing does.

The file has one entry of metadata. One only, because safetensors orders several at random, and
equal networks should be equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

METADATA_KEY = "rewardtune"


def stored_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As they stand in a file: float32, whatever they are computed in."""
    return {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in tensors.items()
    }


def write_weights(path: Path, tensors: Mapping[str, Tensor], *, metadata: str) -> None:
    """Write a file durably.

    Args:
        path: replaced if it is there; its folder is created if missing.
        tensors: as ``stored_tensors`` returns them.
        metadata: any text; it is kept under ``METADATA_KEY``.

    Raises:
        OSError: the disk is full or refuses the write; what was there is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        unfinished.touch()
        mode = unfinished.stat().st_mode
        try:
            safetensors.torch.save_file(
                dict(tensors), unfinished, metadata={METADATA_KEY: metadata}
            )
        except SafetensorError as error:
            raise OSError(str(error)) from error
        unfinished.chmod(mode)  # safetensors lets nobody but the owner read it
        sync(unfinished)
        unfinished.replace(path)
        sync(path.parent)


def content_digest(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of what a file says: its metadata, and names, shapes and bytes of its tensors.

    Args:
        metadata: as it was read from JSON.
        tensors: contiguous, on the CPU.
    """
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
