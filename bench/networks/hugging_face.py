"""A Hugging Face policy's sampler beside ``generate()`` of the same model on the same batch.

ViT-B/16 at 224 pixels with a BERT-base decoder, randomly initialised.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import torch

from bench.figure import Figure, figure
from bench.timing import interleaved, timed
from rewardtune.policies.draw import GREEDY, Decoding
from rewardtune.policies.policy import Policy

_NUM_TOKENS = 20
_START = 101


def vit_b_bert(*, is_quick: bool) -> Iterator[Figure]:
    """4 images, 8 samples each: what one image's group is in captioning."""
    # Imported here: transformers takes seconds to load.
    from transformers import __version__ as transformers_version

    from rewardtune.policies.hugging_face.config import HuggingFaceConfig
    from rewardtune.policies.hugging_face.policy import HuggingFacePolicy

    num_images, num_samples = (1, 2) if is_quick else (4, 8)
    torch.manual_seed(0)
    peer = _model()
    files = {"config.json": json.dumps(peer.config.to_dict())}
    config = HuggingFaceConfig(files=files, sequence_length=_NUM_TOKENS)
    # A policy changes the attention of the model it takes over.
    policy = HuggingFacePolicy(config, copy.deepcopy(peer))
    policy.requires_grad_(False)
    images_GHWC = torch.rand(num_images, 224, 224, 3) * 2 - 1
    _assert_same_tokens(policy, peer, images_GHWC[:1])
    uniforms_GST = torch.rand(num_images, num_samples, _NUM_TOKENS)

    def sample() -> object:
        return policy.sample(images_GHWC, uniforms_GST, decoding=Decoding())

    def draw() -> object:
        return _generate(peer, images_GHWC, num_samples=num_samples)

    seconds = interleaved(
        {"ours": timed(sample), "peer": timed(draw)}, num_rounds=1 if is_quick else 3
    )
    yield figure(
        f"sampler.hugging_face.vit_b_bert.k{num_samples}",
        seconds["ours"],
        amount=num_images * num_samples * _NUM_TOKENS,
        unit="tokens/s",
        peer=f"transformers {transformers_version} {type(peer).__name__}.generate(), same model",
        peer_seconds=seconds["peer"],
    )


def _model() -> Any:
    from transformers import (
        BertConfig,
        BertLMHeadModel,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTModel,
    )

    encoder = ViTModel(ViTConfig(), add_pooling_layer=False)
    decoder = BertLMHeadModel(BertConfig(is_decoder=True, add_cross_attention=True))
    model: Any = VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = _START
    model.config.pad_token_id = model.generation_config.pad_token_id = 0
    return model.eval().requires_grad_(False)


def _generate(
    model: Any, images_GHWC: torch.Tensor, *, num_samples: int, is_greedy: bool = False
) -> torch.Tensor:
    from rewardtune.policies.hugging_face.config import quietly

    with quietly():
        tokens: torch.Tensor = model.generate(
            images_GHWC.permute(0, 3, 1, 2),
            do_sample=not is_greedy,
            **({} if is_greedy else {"top_k": 0}),
            num_return_sequences=num_samples,
            max_new_tokens=_NUM_TOKENS,
            eos_token_id=None,
        )
    return tokens[:, 1:]


def _assert_same_tokens(policy: Policy, peer: Any, images_GHWC: torch.Tensor) -> None:
    """Both decode the images greedily to the same tokens, so they are the same function."""
    zeros_GST = torch.zeros(len(images_GHWC), 1, _NUM_TOKENS)
    ours_GT = policy.sample(images_GHWC, zeros_GST, decoding=GREEDY).tokens_GST[:, 0]
    theirs_GT = _generate(peer, images_GHWC, num_samples=1, is_greedy=True)
    assert torch.equal(ours_GT.long(), theirs_GT), "the peer is not the same function"
