"""Checkpoints that big_vision published, as arrays by name in its current layout.

Source: big_vision utils.py ``load_params`` and models/vit.py ``fix_old_checkpoints``, and flax
``convert_pre_linen``.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Arrays by slash-joined name."""


def load_npz(path: str | Path) -> Arrays:
    """The parameters in an .npz file; its optimizer state is not even read.

    They are the whole file, or what lies below ``params/`` or, in the oldest files, below
    ``opt/target/``. Beside ``params/``, ``state/...`` is kept under its own name. bfloat16
    arrives as 2-byte void and becomes float32; other types stay.

    Args:
        path: with ``file.npz:img`` only what lies below ``img/``, without that prefix.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no .npz file or a damaged one, or has nothing below the prefix, or has an
            array with numbers that are not finite.
    """
    file, subtree = _split_subtree(str(path))
    if not Path(file).exists():
        raise FileNotFoundError(f"checkpoint {file} not found")
    if not zipfile.is_zipfile(file):
        raise ValueError(f"checkpoint {file} is no .npz file, or a truncated one")
    try:
        with np.load(file) as stored:
            keys = _below(_parameters(stored.files), subtree)
            arrays = {name: _without_void(stored[key]) for name, key in keys.items()}
            tops = sorted({key.partition("/")[0] for key in stored.files})
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError) as error:
        raise ValueError(f"checkpoint {file} is damaged: {error}") from error
    if not arrays:
        raise ValueError(
            f"checkpoint {file} has no parameters below '{subtree}/': it holds {', '.join(tops)}"
        )
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(
                f"checkpoint {file} has numbers that are not finite in '{name}': take one of "
                "before its run diverged"
            )
    return arrays


def fix_old_layout(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Rewrite what older versions of big_vision saved into today's names.

    * Modules used to share one counter (``LayerNorm_0``, ``MlpBlock_3``): they are renumbered
      by class, at every level.
    * A plain ViT's position embedding lay inside ``Transformer``, and its first entry was the
      class token's: it is added to ``cls``, or dropped where there is none.
    * A pooling head lay at the top: it moves to ``MAPHead_0``.

    Current layouts come back as they are; no array is copied but ``cls`` where it changes.
    """
    current = _renumber(arrays)
    if not any(name.startswith("Transformer/") for name in current):
        return current
    for old in ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding"):
        if old in current:
            current["pos_embedding"] = current.pop(old)
    position = current.get("pos_embedding")
    if position is not None and math.isqrt(position.shape[1]) ** 2 + 1 == position.shape[1]:
        current["pos_embedding"] = position[:, 1:]
        if "cls" in current:
            current["cls"] = current["cls"] + position[:, :1]
    if "probe" in current:
        head = re.compile("probe|(MlpBlock_0|MultiHeadDotProductAttention_0|LayerNorm_0)/.*")
        return {f"MAPHead_0/{n}" if head.fullmatch(n) else n: a for n, a in current.items()}
    return current


def split_scanned(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    """Give layers that ``scan`` stacked their own names; views, nothing is copied.

    ``encoderblock`` has its layers on axis 0, ``EncDecBlock`` on axis 1.
    """
    split: Arrays = {}
    for name, array in arrays.items():
        match = re.fullmatch("(.*/)?(encoderblock|EncDecBlock)/(.*)", name)
        if match is None:
            split[name] = array
            continue
        above, block, below = match.groups(default="")
        axis, separator = (0, "_") if block == "encoderblock" else (1, "")
        for index, layer in enumerate(np.moveaxis(array, axis, 0)):
            split[f"{above}{block}{separator}{index}/{below}"] = layer
    return split


def _split_subtree(path: str) -> tuple[str, str]:
    match = None if Path(path).exists() else re.fullmatch(r"(.+):([\w/]+)", path)
    return (match[1], match[2].strip("/")) if match else (path, "")


def _parameters(keys: Sequence[str]) -> dict[str, str]:
    """Names of the parameters among a file's keys, each with its key."""
    for prefix in ("params/", "opt/target/"):
        found = {key.removeprefix(prefix): key for key in keys if key.startswith(prefix)}
        if found:
            state = {key: key for key in keys if key.startswith("state/")}
            return found | (state if prefix == "params/" else {})
    return {key: key for key in keys}


def _below(keys: Mapping[str, str], subtree: str) -> dict[str, str]:
    prefix = f"{subtree}/" if subtree else ""
    return {n.removeprefix(prefix): key for n, key in keys.items() if n.startswith(prefix)}


def _without_void(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind != "V" or array.itemsize != 2:
        return array
    # bfloat16 is the upper half of a float32.
    return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _renumber(arrays: Mapping[str, NDArray[Any]]) -> Arrays:
    paths = {path for name in arrays for path in _path_and_those_above(name)}
    counts: Counter[tuple[str, str]] = Counter()
    renamed = {"": ""}
    for path in sorted(paths, key=_top_down_and_natural):
        above, _, last = path.rpartition("/")
        if match := re.fullmatch(r"(.*)_\d+", last):
            last = f"{match[1]}_{counts[above, match[1]]}"
            counts[above, match[1]] += 1
        renamed[path] = f"{renamed[above]}/{last}" if above else last
    return {renamed[name]: array for name, array in arrays.items()}


def _path_and_those_above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _top_down_and_natural(path: str) -> tuple[int, list[tuple[int, str]]]:
    # Natural: encoderblock_9 comes before encoderblock_10.
    pieces = re.split(r"(\d+)", path)
    return path.count("/"), [(int(p) if p.isdigit() else -1, p) for p in pieces]
