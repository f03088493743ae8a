"""Checkpoints that big_vision published, read into our policies.

Our parameters have big_vision's shapes (see ``layers``), so importing is renaming. The names
below are those of its encoder-decoder, models/proj/uvim/vtt.py; a plain ViT's (models/vit.py)
and CapPa's (models/proj/cappa/cappa.py) are first rewritten into them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rewardtune.layers import published_names, resample_position_embedding
from rewardtune.layers.published import Arrays, fix_old_layout, load_npz, split_scanned
from rewardtune.policies.networks.vit import VitPolicy

_NAMES = (
    ("patch_embedding", "EmbedPatches"),
    ("position_embedding", "pos_embedding_encoder"),
    ("encoder.blocks.#.norm_0", "encoder/encoderblock_#/LayerNorm_0"),
    ("encoder.blocks.#.attention", "encoder/encoderblock_#/MultiHeadDotProductAttention_0"),
    ("encoder.blocks.#.norm_1", "encoder/encoderblock_#/LayerNorm_1"),
    ("encoder.blocks.#.mlp.dense_0", "encoder/encoderblock_#/MlpBlock_0/Dense_0"),
    ("encoder.blocks.#.mlp.dense_1", "encoder/encoderblock_#/MlpBlock_0/Dense_1"),
    ("encoder.norm", "encoder/encoder_norm"),
    ("decoder.token_embedding", "decoder/EmbedTargets/embedding"),
    ("decoder.position_embedding", "pos_embedding_decoder"),
    ("decoder.blocks.#.norm_0", "decoder/EncDecBlock#/LayerNorm1"),
    ("decoder.blocks.#.self_attention", "decoder/EncDecBlock#/SelfAttn"),
    ("decoder.blocks.#.norm_1", "decoder/EncDecBlock#/LayerNorm2"),
    ("decoder.blocks.#.cross_attention", "decoder/EncDecBlock#/CrossAttn"),
    ("decoder.blocks.#.norm_2", "decoder/EncDecBlock#/LayerNorm3"),
    ("decoder.blocks.#.mlp.dense_0", "decoder/EncDecBlock#/MLP/Dense_0"),
    ("decoder.blocks.#.mlp.dense_1", "decoder/EncDecBlock#/MLP/Dense_1"),
    ("decoder.norm", "decoder/LayerNorm"),
    ("decoder.head.project", "decoder/LogitsDense"),
)

# The parts of a plain ViT, which CapPa has below encoder/, and their place in vtt.
_VIT_PARTS = {
    "embedding": "EmbedPatches",
    "pos_embedding": "pos_embedding_encoder",
    "Transformer": "encoder",
}

# What a plain ViT has and an encoder does not use, and what it cannot fill.
_NOT_FROM_VIT = ("cls", "head/.*", "pre_logits/.*", "decoder/.*", "pos_embedding_decoder")

_NETWORK = "an encoder-decoder"


def to_published(name: str) -> str:
    """Our parameter's name as big_vision's vtt has it.

    Raises:
        ValueError: an ``EncoderDecoder`` has no such parameter.
    """
    return published_names.to_published(name, _NAMES, network=_NETWORK)


def from_published(name: str) -> str:
    """Our name of a parameter of big_vision's vtt; the inverse of ``to_published``.

    Raises:
        ValueError: vtt has no such parameter.
    """
    return published_names.from_published(name, _NAMES, network=_NETWORK)


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint's parameters by the names of vtt."""

    arrays: Arrays
    is_plain_vit: bool
    """It holds an encoder and no decoder."""


def read_big_vision(path: str | Path) -> Published:
    """Read a checkpoint of any layout; see ``load_npz``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read.
    """
    arrays = {n: a for n, a in load_npz(path).items() if not n.startswith("state/")}
    arrays = split_scanned(fix_old_layout(arrays))
    is_plain_vit = any(name.startswith("Transformer/") for name in arrays)
    return Published({_as_vtt(name): array for name, array in arrays.items()}, is_plain_vit)


def load_big_vision(policy: VitPolicy, path: str | Path, *, dont_load: Sequence[str] = ()) -> None:
    """Fill a policy from a published checkpoint: all of it, or its encoder from a plain ViT.

    The encoder's position embedding is resampled from one square grid to another. A plain
    ViT's ``cls``, ``head`` and ``pre_logits`` are passed over.

    Args:
        policy: keeps its dtype and device, and its initial values where nothing is loaded.
        path: see ``load_npz``.
        dont_load: regular expressions for whole published names (``decoder/LogitsDense/.*``):
            what matches keeps its initial value; it may be missing, superfluous or misshapen.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read; or arrays are missing, unexpected or misshapen, all
            listed in one message; or a pattern matches nothing. The policy is then as it was.
    """
    fill(policy, read_big_vision(path), path, dont_load=dont_load)


@torch.no_grad()
def fill(
    policy: VitPolicy,
    published: Published,
    path: str | Path,
    *,
    dont_load: Sequence[str] = (),
) -> None:
    """``load_big_vision`` of what ``read_big_vision`` gave; takes its arrays out one by one."""
    arrays = published.arrays
    parameters = {to_published(name): p for name, p in policy.named_parameters()}

    _check_patterns(dont_load, parameters.keys() | arrays.keys())
    passed_over = [*dont_load, *(_NOT_FROM_VIT if published.is_plain_vit else ())]
    for name in parameters.keys() | arrays.keys():
        if any(re.fullmatch(pattern, name) for pattern in passed_over):
            parameters.pop(name, None)
            arrays.pop(name, None)
    published_names.check_fit(
        {name: array.shape for name, array in arrays.items()},
        {name: tuple(parameter.shape) for name, parameter in parameters.items()},
        path,
        network="the policy",
        advice="Give the policy the checkpoint's sizes, or name what to pass over in dont_load",
        fits=_fits,
    )
    for name, parameter in parameters.items():
        # Popped: what has been copied need not be kept.
        value = torch.from_numpy(np.ascontiguousarray(arrays.pop(name)))
        if value.shape != parameter.shape:
            value = _resample(value, parameter)
        parameter.copy_(value)


def _as_vtt(name: str) -> str:
    part, separator, rest = name.removeprefix("encoder/").partition("/")
    return f"{_VIT_PARTS[part]}{separator}{rest}" if part in _VIT_PARTS else name


def _check_patterns(patterns: Sequence[str], names: Iterable[str]) -> None:
    names = sorted(names)
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            raise ValueError(
                f"dont_load pattern '{pattern}' matches no array; their names are such as "
                f"{', '.join(names[:3])}"
            )


def _fits(name: str, found: tuple[int, ...], needed: tuple[int, ...]) -> bool:
    if name == "pos_embedding_encoder" and len(found) == 3:
        # A policy's grid is square; a stored one must be too, for its sides to be known.
        is_square = math.isqrt(found[1]) ** 2 == found[1]
        return found == needed or (is_square and found[::2] == needed[::2])
    return found == needed


def _resample(stored_1ND: Tensor, parameter_1ND: Tensor) -> Tensor:
    old, new = math.isqrt(stored_1ND.shape[1]), math.isqrt(parameter_1ND.shape[1])
    return resample_position_embedding(stored_1ND.float(), old_grid=(old, old), new_grid=(new, new))
