"""A published checkpoint as a policy of our own, whose sizes follow from its arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rewardtune.policies.kinds.big_vision import fill, read_big_vision
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

_QUERY = "encoder/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"
_MLP = "encoder/encoderblock_0/MlpBlock_0/Dense_0/kernel"
_NEEDED = ("EmbedPatches/kernel", _QUERY, _MLP)


def import_policy(
    path: str | Path,
    *,
    vocab_size: int,
    sequence_length: int,
    input_size: int | None = None,
    decoder_depth: int | None = None,
) -> EncoderDecoder:
    """Read UViM's stage II, or a plain ViT (AugReg's too) as the encoder of a fresh decoder.

    Draws from torch's random numbers.

    Args:
        path: an .npz file; see ``rewardtune.layers.published.load_npz``.
        vocab_size, sequence_length: of the task that the policy is for.
        input_size: side of the image in pixels; None: the checkpoint's. Positions are resampled.
        decoder_depth: blocks of a plain ViT's decoder; a stage II has its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read, is another network, or speaks another number of
            tokens; or ``decoder_depth`` is missing or superfluous.
    """
    published = read_big_vision(path)
    arrays = published.arrays
    if missing := [name for name in _NEEDED if name not in arrays]:
        raise ValueError(
            f"checkpoint {path} is neither a plain ViT nor a UViM stage II: it has no "
            f"{', '.join(missing)}. Import a stage I by --stage one"
        )
    if published.is_plain_vit and decoder_depth is None:
        raise ValueError(
            f"checkpoint {path} holds an encoder alone: say how many blocks the decoder gets by "
            f"--decoder-depth"
        )
    if not published.is_plain_vit:
        _check_tokens(arrays, path, vocab_size=vocab_size, sequence_length=sequence_length)
        found = _depth(arrays, "decoder/EncDecBlock")
        if decoder_depth not in (None, found):
            raise ValueError(
                f"checkpoint {path} has {found} decoder blocks: leave out --decoder-depth "
                f"{decoder_depth}"
            )
        decoder_depth = found
    patch_size = arrays["EmbedPatches/kernel"].shape[0]
    position = arrays.get("pos_embedding_encoder")
    if position is None and input_size is None:
        raise ValueError(
            f"checkpoint {path} has fixed positions and does not tell the size of its images: "
            f"give --input-size"
        )
    assert decoder_depth is not None
    policy = EncoderDecoder(
        EncoderDecoderConfig(
            input_size=input_size or _side(position, path) * patch_size,
            patch_size=patch_size,
            width=arrays[_QUERY].shape[0],
            num_heads=arrays[_QUERY].shape[1],
            mlp_width=arrays[_MLP].shape[1],
            encoder_depth=_depth(arrays, "encoder/encoderblock_"),
            decoder_depth=decoder_depth,
            vocab_size=vocab_size,
            sequence_length=sequence_length,
            position_embedding="sincos2d" if position is None else "learned",
        )
    )
    fill(policy, published, path)
    return policy


def _check_tokens(
    arrays: Mapping[str, NDArray[Any]],
    path: str | Path,
    *,
    vocab_size: int,
    sequence_length: int,
) -> None:
    found = arrays["decoder/EmbedTargets/embedding"].shape[0]
    if found != vocab_size:
        raise ValueError(
            f"checkpoint {path} speaks {found} tokens but the task needs {vocab_size}: name the "
            f"task, and its stage I, that the checkpoint was made for"
        )
    position = arrays.get("pos_embedding_decoder")
    if position is not None and position.shape[1] != sequence_length:
        raise ValueError(
            f"checkpoint {path} speaks sequences of {position.shape[1]} tokens but the task's "
            f"have {sequence_length}: name the task, and its stage I, that it was made for"
        )


def _side(position_1ND: NDArray[Any] | None, path: str | Path) -> int:
    assert position_1ND is not None
    side = math.isqrt(position_1ND.shape[1])
    if side**2 != position_1ND.shape[1]:
        raise ValueError(
            f"checkpoint {path} has {position_1ND.shape[1]} positions, which are no square: give "
            f"--input-size"
        )
    return side


def _depth(arrays: Mapping[str, NDArray[Any]], start: str) -> int:
    return len({name.split("/")[1] for name in arrays if name.startswith(start)})
