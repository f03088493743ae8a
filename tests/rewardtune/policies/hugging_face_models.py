"""Tiny randomly initialised models of transformers, as folders that ``save_pretrained`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertLMHeadModel,
    DeiTConfig,
    DeiTModel,
    GPT2Config,
    GPT2LMHeadModel,
    TrOCRConfig,
    TrOCRForCausalLM,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "an",
    "the",
    "of",
    "on",
    "in",
    "one",
    "two",
    "three",
    "red",
    "blue",
    "green",
    "digit",
    "digits",
    "and",
]
START, STOP = 2, 3
NUM_POSITIONS = 40
KINDS = ("vit_bert", "vit_gpt2", "deit_bert_narrow", "vit_trocr")


def tiny_model(kind: str, *, seed: int = 0, vocab_size: int = len(PIECES)) -> Any:
    """One of ``KINDS``, with weights such that no distribution is near uniform."""
    torch.manual_seed(seed)
    encoder_kind, decoder_kind, *narrow = kind.split("_")
    encoder = _encoder(encoder_kind, width=24 if narrow else 32)
    decoder = _decoder(decoder_kind, vocab_size)
    model: Any = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = START
    model.config.eos_token_id = STOP
    model.config.pad_token_id = 0
    model.generation_config.decoder_start_token_id = START
    model.generation_config.eos_token_id = STOP
    model.generation_config.pad_token_id = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith(("LayerNorm.weight", "norm.weight", "layer_norm.weight")):
                nn.init.normal_(parameter, std=0.3)
    return model.eval()


def save_model(model: Any, folder: Path, *, pieces: tuple[str, ...] | None = None) -> Path:
    """Write it as users have it: weights, configs, image processor, vocabulary."""
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_normalize": True,
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.26, 0.27, 0.28],
        "size": {"height": 32, "width": 32},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces or PIECES))
    return folder


def _encoder(kind: str, *, width: int) -> Any:
    sizes: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    return ViTModel(ViTConfig(**sizes)) if kind == "vit" else DeiTModel(DeiTConfig(**sizes))


def _decoder(kind: str, vocab_size: int) -> Any:
    if kind == "bert":
        return BertLMHeadModel(
            BertConfig(
                vocab_size=vocab_size,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=NUM_POSITIONS,
                is_decoder=True,
                add_cross_attention=True,
            )
        )
    if kind == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocab_size,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_inner=48,
                n_positions=NUM_POSITIONS,
                add_cross_attention=True,
                bos_token_id=START,
                eos_token_id=STOP,
            )
        )
    return TrOCRForCausalLM(
        TrOCRConfig(
            vocab_size=vocab_size,
            d_model=32,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=48,
            max_position_embeddings=NUM_POSITIONS,
            cross_attention_hidden_size=32,
            is_decoder=True,
        )
    )
