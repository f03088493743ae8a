"""The networks that are measured, and random weights for them.

Axes: G images, S samples of each, T tokens, P patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

DEMO = EncoderDecoderConfig(
    input_size=48,
    patch_size=8,
    width=96,
    num_heads=4,
    mlp_width=384,
    encoder_depth=3,
    decoder_depth=2,
    vocab_size=1014,
    sequence_length=48,
)
"""What ``make demo`` tunes: 1001 levels, 3 confidences, 10 digits, 8 boxes."""

VIT_B = EncoderDecoderConfig(
    input_size=224,
    patch_size=16,
    width=768,
    num_heads=12,
    mlp_width=3072,
    encoder_depth=12,
    decoder_depth=6,
    vocab_size=1014,
    sequence_length=60,
)

FULL_SIZE = VIT_B.model_copy(
    update={"input_size": 1280, "vocab_size": 1084, "sequence_length": 600}
)
"""Table 6 of the paper: COCO's 80 classes, 100 boxes."""

TINY = DEMO.model_copy(
    update={
        "input_size": 16,
        "width": 16,
        "num_heads": 2,
        "mlp_width": 32,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "sequence_length": 6,
    }
)
"""For tests of the benchmark itself."""


def random_policy(config: EncoderDecoderConfig) -> EncoderDecoder:
    """With a head that is not zero, as a fresh one is, so that draws are spread but not uniform."""
    torch.manual_seed(0)
    policy = EncoderDecoder(config)
    nn.init.normal_(policy.decoder.head.project.kernel, std=config.width**-0.5)
    return policy


def random_images(num_images: int, config: EncoderDecoderConfig) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (num_images, config.input_size, config.input_size, 3)
    return torch.rand(shape, generator=generator) * 2 - 1
