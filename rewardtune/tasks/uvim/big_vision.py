"""Stage-I checkpoints that big_vision published, read into our network.

Our parameters have big_vision's shapes (see ``layers``), so importing is renaming. The names are
those of models/proj/uvim/vit.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.layers import published_names
from rewardtune.layers.published import fix_old_layout, load_npz, split_scanned
from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.stage_one import StageOne

_NETWORK = "a stage-I network"
_NAMES = (
    ("encoder.label_embeddings.color", "embedding_color"),
    ("encoder.label_embeddings.instances", "embedding_instances"),
    ("encoder.label_embeddings.semantics", "embedding_semantics"),
    ("encoder.context_embedding", "ctx_enc_embedding"),
    ("encoder.position_embedding", "pos_embedding_encoder"),
    ("encoder.bottleneck", "bottleneck_downsample"),
    ("encoder.head", "encoder_head"),
    *(
        row
        for side in ("encoder", "decoder")
        for row in (
            (f"{side}.trunk.blocks.#.norm_0", f"{side}/encoderblock_#/LayerNorm_0"),
            (
                f"{side}.trunk.blocks.#.attention",
                f"{side}/encoderblock_#/MultiHeadDotProductAttention_0",
            ),
            (f"{side}.trunk.blocks.#.norm_1", f"{side}/encoderblock_#/LayerNorm_1"),
            (f"{side}.trunk.blocks.#.mlp.dense_0", f"{side}/encoderblock_#/MlpBlock_0/Dense_0"),
            (f"{side}.trunk.blocks.#.mlp.dense_1", f"{side}/encoderblock_#/MlpBlock_0/Dense_1"),
            (f"{side}.trunk.norm", f"{side}/encoder_norm"),
        )
    ),
    ("decoder.stem", "decoder_stem"),
    ("decoder.bottleneck", "bottleneck_upsample"),
    ("decoder.context_embedding", "ctx_dec_embedding"),
    ("decoder.position_embedding", "pos_embedding_decoder"),
    ("decoder.heads.color", "head_color"),
    ("decoder.heads.instances", "head_instances"),
    ("decoder.heads.semantics", "head_semantics"),
    ("codebook.dictionary", "state/dictionary"),
    ("codebook.counts", "state/counts"),
)

_OLD_PARTS = {"Encoder": "encoder", "Decoder": "decoder"}


def to_published(name: str) -> str:
    """Our parameter's or state's name as big_vision has it.

    Raises:
        ValueError: a ``StageOne`` has no such parameter.
    """
    return published_names.to_published(name, _NAMES, network=_NETWORK)


@torch.no_grad()
def import_stage_one(path: str | Path, *, code_length: int | None = None) -> StageOne:
    """Read a published stage I; its sizes follow from its arrays.

    Args:
        path: an .npz file with ``params/`` and ``state/``.
        code_length: codes of a picture; None: what a bottleneck of matrices says, or, where it
            is resized, the 256 of all published files.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read; or arrays are missing, unexpected or misshapen, all
            listed in one message.
    """
    arrays = {_modern(name): array for name, array in load_npz(path).items()}
    arrays = split_scanned(fix_old_layout(arrays))
    network = StageOne(_config(arrays, path, code_length=code_length))
    needed: dict[str, Tensor] = {
        to_published(name): tensor for name, tensor in network.state_dict().items()
    }
    published_names.check_fit(
        {name: array.shape for name, array in arrays.items()},
        {name: tuple(tensor.shape) for name, tensor in needed.items()},
        path,
        network=_NETWORK,
        advice="Its sizes were taken from its own arrays, so the file is damaged or of another "
        "version",
    )
    for name, tensor in needed.items():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(arrays.pop(name))))
    return network


def _modern(name: str) -> str:
    part, separator, rest = name.partition("/")
    return f"{_OLD_PARTS.get(part, part)}{separator}{rest}"


def _config(
    arrays: Mapping[str, NDArray[Any]], path: str | Path, *, code_length: int | None
) -> StageOneConfig:
    names = (
        "ctx_dec_embedding/kernel",
        "pos_embedding_decoder",
        "state/dictionary",
        "encoder/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel",
        "encoder/encoderblock_0/MlpBlock_0/Dense_0/kernel",
    )
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(
            f"checkpoint {path} is no UViM stage I: it has no {', '.join(missing)}. Import a "
            f"stage II by --stage two, a plain ViT by --stage encoder"
        )
    context, position, dictionary, query, mlp = (arrays[name] for name in names)
    matrix = arrays.get("bottleneck_downsample")
    if matrix is not None:
        code_length = matrix.shape[-1]
    return StageOneConfig(
        input_size=math.isqrt(position.shape[1]) * context.shape[0],
        patch_size=context.shape[0],
        width=context.shape[-1],
        num_heads=query.shape[1],
        mlp_width=mlp.shape[-1],
        encoder_depth=_depth(arrays, "encoder"),
        decoder_depth=_depth(arrays, "decoder"),
        code_length=256 if code_length is None else code_length,
        dict_size=dictionary.shape[0],
        codeword_width=dictionary.shape[1],
        outputs={
            name.removeprefix("head_").removesuffix("/kernel"): array.shape[1]
            for name, array in sorted(arrays.items(), reverse=True)
            if name.startswith("head_") and name.endswith("/kernel")
        },
        bottleneck="resize" if matrix is None else "matrix",
    )


def _depth(arrays: Mapping[str, NDArray[Any]], side: str) -> int:
    start = f"{side}/encoderblock_"
    return len({name.split("/")[1] for name in arrays if name.startswith(start)})
