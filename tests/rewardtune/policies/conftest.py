"""Tiny networks of big_vision with the outputs that it computed, and random ones of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rewardtune.policies.kinds.big_vision import load_big_vision
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

FIXTURES = Path(__file__).parents[2] / "fixtures"

SIZES = {
    "vtt": EncoderDecoderConfig(
        input_size=32,
        patch_size=8,
        width=32,
        num_heads=4,
        mlp_width=64,
        encoder_depth=2,
        decoder_depth=2,
        vocab_size=17,
        sequence_length=12,
    ),
    "vtt_eos": EncoderDecoderConfig(
        input_size=16,
        patch_size=8,
        width=24,
        num_heads=3,
        mlp_width=32,
        encoder_depth=1,
        decoder_depth=1,
        vocab_size=11,
        sequence_length=8,
    ),
    # Plain ViTs: the decoder is ours.
    "vit_encoder": EncoderDecoderConfig(
        input_size=32,
        patch_size=8,
        width=32,
        num_heads=4,
        mlp_width=64,
        encoder_depth=2,
        decoder_depth=1,
        vocab_size=5,
        sequence_length=3,
    ),
    "vit_augreg_style_ckpt": EncoderDecoderConfig(
        input_size=40,
        patch_size=8,
        width=24,
        num_heads=3,
        mlp_width=40,
        encoder_depth=2,
        decoder_depth=1,
        vocab_size=5,
        sequence_length=3,
    ),
}


@dataclass(frozen=True)
class Reference:
    """A published network: its file, what the file holds, and its weights in a policy of ours."""

    path: Path
    arrays: dict[str, NDArray[Any]]
    policy: EncoderDecoder

    def tensor(self, name: str) -> Tensor:
        value = torch.from_numpy(self.arrays[name])
        return value.long() if value.dtype == torch.int32 else value

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Arrays below a prefix, without it."""
        start = f"{prefix}/"
        return {n.removeprefix(start): a for n, a in self.arrays.items() if n.startswith(start)}


@pytest.fixture
def reference() -> Callable[[str], Reference]:
    """Load one of ``SIZES`` by name."""

    def load(name: str) -> Reference:
        path = FIXTURES / f"{name}.npz"
        with np.load(path) as stored:
            arrays = dict(stored)
        policy = EncoderDecoder(SIZES[name])
        load_big_vision(policy, path)
        return Reference(path, arrays, policy)

    return load


@pytest.fixture
def random_policy() -> Callable[..., EncoderDecoder]:
    """A policy with weights such that nothing is near 0 or uniform; keywords change its sizes."""

    def build(*, seed: int = 0, **sizes: Any) -> EncoderDecoder:
        torch.manual_seed(seed)
        config = SIZES["vtt"].model_copy(update=sizes)
        policy = EncoderDecoder(config)
        for name, parameter in policy.named_parameters():
            if name.endswith(("bias", "head.project.kernel", "readout.drawn.kernel")):
                nn.init.normal_(parameter, std=0.3)
        return policy

    return build
