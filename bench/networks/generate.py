"""The peer: transformers' encoder-decoder with the weights of one of our policies.

A GPT-2 decoder with cross-attention is pre-norm like ours, so a policy without head bias maps
onto a ``VisionEncoderDecoderModel`` exactly; attention biases that we do not have are 0 there,
and the class token that we do not have is left out of its ViT. Its activation is torch's own
tanh GELU, not the slower formula GPT-2 comes with: the peer shall be at its best.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTModel
from transformers import VisionEncoderDecoderModel as VisionEncoderDecoder
from transformers import __version__ as transformers_version
from transformers.utils import logging as transformers_logging

from rewardtune.layers.dense import LAYER_NORM_EPSILON, LayerNorm
from rewardtune.layers.transformer import DecoderBlock, EncoderBlock
from rewardtune.policies.draw import GREEDY
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

PEER = f"transformers {transformers_version} VisionEncoderDecoderModel.generate(), same weights"
_ACTIVATION = "gelu_pytorch_tanh"

# It would warn that no attention mask is given; there is no padding to mask.
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


class _PatchesOnly(nn.Module):
    """In place of ViT's embeddings: the same without a class token."""

    def __init__(self, patch_embeddings: nn.Module, position_1PD: Tensor) -> None:
        super().__init__()
        self.patch_embeddings = patch_embeddings
        self.position = nn.Parameter(position_1PD.clone())

    def forward(self, pixel_values: Tensor, **_: object) -> Tensor:
        embedded: Tensor = self.patch_embeddings(pixel_values) + self.position
        return embedded


@torch.no_grad()
def equal_peer(policy: EncoderDecoder) -> Any:
    """The same function of an image in transformers' classes.

    Raises:
        ValueError: the policy's head has a bias, which GPT-2's has not.
    """
    if policy.decoder.head.project.bias.any():
        raise ValueError("the peer's head has no bias: set the policy's to 0")
    config = policy.config
    # transformers' modules carry no types that would help here.
    encoder: Any = _vit(config)
    decoder: Any = _gpt2(config)
    position_1PD = policy.position_embedding
    encoder.embeddings = _PatchesOnly(encoder.embeddings.patch_embeddings, position_1PD)
    projection = encoder.embeddings.patch_embeddings.projection
    projection.weight.copy_(policy.patch_embedding.kernel.permute(3, 2, 0, 1))
    projection.bias.copy_(policy.patch_embedding.bias)
    for ours, theirs in zip(policy.encoder.blocks, encoder.layers, strict=True):
        _copy_encoder_block(ours, theirs)  # type: ignore[arg-type]
    _copy_norm(policy.encoder.norm, encoder.layernorm)

    trunk = decoder.transformer
    trunk.wte.weight.copy_(policy.decoder.token_embedding)
    trunk.wpe.weight.copy_(policy.decoder.position_embedding[0])
    for ours, theirs in zip(policy.decoder.blocks, trunk.h, strict=True):
        _copy_decoder_block(ours, theirs)  # type: ignore[arg-type]
    _copy_norm(policy.decoder.norm, trunk.ln_f)
    decoder.lm_head.weight.copy_(policy.decoder.head.project.kernel.t())
    peer: Any = VisionEncoderDecoder(encoder=encoder, decoder=decoder)
    return peer.eval()


@torch.no_grad()
def generate(
    peer: Any,
    images_GHWC: Tensor,
    *,
    num_samples: int,
    length: int,
    is_greedy: bool = False,
) -> Tensor:
    """Tokens [G, S, T], without the start token."""
    pixels_GCHW = images_GHWC.permute(0, 3, 1, 2).to(peer.dtype)
    tokens = peer.generate(
        pixels_GCHW,
        do_sample=not is_greedy,
        **({} if is_greedy else {"top_k": 0}),
        num_return_sequences=num_samples,
        max_new_tokens=length,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=None,
    )
    tokens_GST: Tensor = tokens[:, 1:].unflatten(0, (len(images_GHWC), num_samples))
    return tokens_GST


def _vit(config: EncoderDecoderConfig) -> ViTModel:
    return ViTModel(
        ViTConfig(
            image_size=config.input_size,
            patch_size=config.patch_size,
            hidden_size=config.width,
            num_hidden_layers=config.encoder_depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            hidden_act=_ACTIVATION,
            layer_norm_eps=LAYER_NORM_EPSILON,
        ),
        add_pooling_layer=False,
    )


def _gpt2(config: EncoderDecoderConfig) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.sequence_length,
            n_embd=config.width,
            n_layer=config.decoder_depth,
            n_head=config.num_heads,
            n_inner=config.mlp_width,
            activation_function=_ACTIVATION,
            layer_norm_epsilon=LAYER_NORM_EPSILON,
            add_cross_attention=True,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=None,
            pad_token_id=0,
        )
    )


def _copy_norm(ours: LayerNorm, theirs: nn.LayerNorm) -> None:
    theirs.weight.copy_(ours.scale)
    theirs.bias.copy_(ours.bias)


def _copy_linear(kernel: Tensor, bias: Tensor, theirs: nn.Linear) -> None:
    theirs.weight.copy_(kernel.t())
    theirs.bias.copy_(bias)


def _copy_encoder_block(ours: EncoderBlock, theirs: Any) -> None:
    attention = ours.attention
    for name in ("query", "key", "value"):
        projection = getattr(attention, name)
        linear = getattr(theirs.attention, f"{name[0]}_proj")
        _copy_linear(projection.kernel.flatten(1), projection.bias.flatten(), linear)
    out = attention.out
    assert out.bias is not None
    _copy_linear(out.kernel.flatten(0, 1), out.bias, theirs.attention.o_proj)
    _copy_linear(ours.mlp.dense_0.kernel, ours.mlp.dense_0.bias, theirs.mlp.fc1)
    _copy_linear(ours.mlp.dense_1.kernel, ours.mlp.dense_1.bias, theirs.mlp.fc2)
    _copy_norm(ours.norm_0, theirs.layernorm_before)
    _copy_norm(ours.norm_1, theirs.layernorm_after)


def _copy_decoder_block(ours: DecoderBlock, theirs: Any) -> None:
    for attention, target in (
        (ours.self_attention, theirs.attn),
        (ours.cross_attention, theirs.crossattention),
    ):
        kernels = [p.kernel.flatten(1) for p in (attention.query, attention.key, attention.value)]
        if target.is_cross_attention:
            target.q_attn.weight.copy_(kernels.pop(0))
            target.q_attn.bias.zero_()
        target.c_attn.weight.copy_(torch.cat(kernels, dim=1))
        target.c_attn.bias.zero_()
        target.c_proj.weight.copy_(attention.out.kernel.flatten(0, 1))
        target.c_proj.bias.zero_()
    theirs.mlp.c_fc.weight.copy_(ours.mlp.dense_0.kernel)
    theirs.mlp.c_fc.bias.copy_(ours.mlp.dense_0.bias)
    theirs.mlp.c_proj.weight.copy_(ours.mlp.dense_1.kernel)
    theirs.mlp.c_proj.bias.copy_(ours.mlp.dense_1.bias)
    _copy_norm(ours.norm_0, theirs.ln_1)
    _copy_norm(ours.norm_1, theirs.ln_cross_attn)
    _copy_norm(ours.norm_2, theirs.ln_2)


def assert_same_tokens(peer: Any, policy: EncoderDecoder, images_GHWC: Tensor) -> None:
    """Both decode the images greedily to the same tokens, so they are the same function."""
    length = policy.sequence_length
    ours_GST = policy.sample(
        images_GHWC, torch.zeros(len(images_GHWC), 1, length), decoding=GREEDY
    ).tokens_GST
    theirs_GST = generate(peer, images_GHWC, num_samples=1, length=length, is_greedy=True)
    assert torch.equal(ours_GST.long(), theirs_GST), "the peer is not the same function"
