"""Hugging Face models from folders as ``save_pretrained`` writes them, and back into such."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import VisionEncoderDecoderModel

from rewardtune.layers.finite import not_finite
from rewardtune.policies.hugging_face.config import CONFIG, HuggingFaceError, quietly

_TEXT_FILES = ("*.json", "*.txt", "*.jinja")
_NOT_CARRIED = "*.index.json"
"""Lists the parts of weights that are stored as one."""
_LARGEST_BYTES = 32 * 2**20


def read_folder(folder: Path) -> tuple[dict[str, str], Any]:
    """The text files of a model's folder by name, and the model. Nothing is looked for outside.

    Raises:
        HuggingFaceError: it is no such folder, of another kind of model, or damaged, or has a
            weight that is not finite.
    """
    files = _text_files(folder)
    try:
        kind = json.loads(files[CONFIG]).get("model_type") if CONFIG in files else None
    except json.JSONDecodeError as error:
        raise HuggingFaceError(f"{folder / CONFIG} is no valid JSON: {error}") from error
    if kind != "vision-encoder-decoder":
        found = f"its {CONFIG} says '{kind}'" if CONFIG in files else f"it has no {CONFIG}"
        raise HuggingFaceError(
            f"{folder} is no VisionEncoderDecoderModel: {found}. Give the folder that "
            "save_pretrained wrote"
        )
    try:
        with quietly(), torch.random.fork_rng(devices=()):
            # Typed as if it always gave the model alone.
            loaded: Any = VisionEncoderDecoderModel.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
        model, report = loaded
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        first = str(error).strip().partition("\n")[0]
        raise HuggingFaceError(f"the model in {folder} cannot be read: {first}") from error
    if missing := sorted(report["missing_keys"]):
        raise HuggingFaceError(
            f"the model in {folder} lacks {len(missing)} weights, first '{missing[0]}': save it "
            "again with save_pretrained"
        )
    if (name := not_finite(model.state_dict())) is not None:
        raise HuggingFaceError(
            f"the model in {folder} has numbers that are not finite in '{name}': the training that "
            "wrote it diverged, give an earlier checkpoint"
        )
    return files, model


def write_folder(folder: Path, model: Any, files: Mapping[str, str]) -> None:
    """Write a model's folder, with the text files that it came with.

    Raises:
        HuggingFaceError: the folder holds something already.
        OSError: it cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        raise HuggingFaceError(f"{folder} holds other files: choose another folder or empty it")
    folder.mkdir(parents=True, exist_ok=True)
    with quietly():
        model.save_pretrained(folder)
    for name, text in files.items():
        # Its own config also says in which dtype the weights are stored now.
        if name != CONFIG:
            (folder / name).write_text(text, encoding="utf-8")


def _text_files(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise HuggingFaceError(f"{folder} is no folder: give one that save_pretrained wrote")
    paths = sorted(path for pattern in _TEXT_FILES for path in folder.glob(pattern))
    return {
        path.name: path.read_text(encoding="utf-8")
        for path in paths
        if not path.match(_NOT_CARRIED) and path.stat().st_size <= _LARGEST_BYTES
    }
