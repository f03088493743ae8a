"""Our sampler beside transformers' ``generate()`` on the same weights and batch.

Axes: G images, S samples of each, T tokens.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator

import torch

from bench.figure import Figure, figure
from bench.networks.floor import drawing, encoding, floor
from bench.networks.sizes import DEMO, VIT_B, random_images, random_policy
from bench.timing import interleaved, timed
from rewardtune.policies.draw import Decoding
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from rewardtune.policies.weights import is_float32_only


def demo(*, is_quick: bool) -> Iterator[Figure]:
    """64 images at the size that ``make demo`` tunes."""
    yield from sampler_figures(
        "sampler.demo", DEMO, dtype=torch.float32, num_images=64, num_rounds=3 if is_quick else 9
    )


def vit_b(*, is_quick: bool) -> Iterator[Figure]:
    """4 images at 224 px, in both dtypes; in quick runs without peer and floor."""
    for dtype in (torch.float32, torch.bfloat16):
        name = f"sampler.vit_b.{str(dtype).removeprefix('torch.')}"
        if is_quick:
            yield from sampler_figures(
                name, VIT_B, dtype=dtype, num_images=1, samples=(2,), num_rounds=1, compares=False
            )
        else:
            yield from sampler_figures(name, VIT_B, dtype=dtype, num_images=4, num_rounds=3)


def vit_b_448(*, is_quick: bool) -> Iterator[Figure]:
    """2 images of four times as many patches, whose keys stand once for 8 samples."""
    if not is_quick:
        config = VIT_B.model_copy(update={"input_size": 448})
        yield from sampler_figures(
            "sampler.vit_b_448.bfloat16",
            config,
            dtype=torch.bfloat16,
            num_images=2,
            samples=(8,),
            num_rounds=3,
        )


def sampler_figures(
    name: str,
    config: EncoderDecoderConfig,
    *,
    dtype: torch.dtype,
    num_images: int,
    num_rounds: int,
    samples: tuple[int, ...] = (1, 2, 8),
    compares: bool = True,
) -> Iterator[Figure]:
    """Tokens per second and whole-batch seconds, encoding included.

    Raises:
        AssertionError: in float32, the peer does not draw the same tokens greedily.
    """
    policy = random_policy(config).eval().requires_grad_(False)
    images_GHWC = random_images(num_images, config)
    length = config.sequence_length
    ours = in_dtype(policy, dtype)
    ways = {}
    if compares:
        # Imported here: transformers takes seconds to load.
        from bench.networks.generate import PEER, assert_same_tokens, equal_peer, generate

        peer = equal_peer(policy)
        assert_same_tokens(peer, policy, images_GHWC[:2])
        peer = peer.to(dtype)
    for num_samples in samples:
        uniforms_GST = torch.rand(num_images, num_samples, length)

        def sample(uniforms_GST: torch.Tensor = uniforms_GST) -> object:
            return ours.sample(images_GHWC, uniforms_GST, decoding=Decoding(), probe_tokens=(1, 2))

        ways = {"ours": timed(sample)}
        if compares:

            def draw(num_samples: int = num_samples) -> object:
                return generate(peer, images_GHWC, num_samples=num_samples, length=length)

            ways["peer"] = timed(draw)
            ways["floor"] = floor(
                encoding(config, num_images=num_images, dtype=dtype),
                drawing(config, num_images=num_images, num_samples=num_samples, dtype=dtype),
            )
        seconds = interleaved(ways, num_rounds=num_rounds)
        num_tokens = num_images * num_samples * length
        for suffix, amount, unit in (("", num_tokens, "tokens/s"), (".seconds", None, "s")):
            yield figure(
                f"{name}.k{num_samples}{suffix}",
                seconds["ours"],
                amount=amount,
                unit=unit,
                peer=PEER if compares else None,
                peer_seconds=seconds.get("peer"),
                floor_seconds=seconds.get("floor"),
            )
        gc.collect()


def in_dtype(policy: EncoderDecoder, dtype: torch.dtype) -> EncoderDecoder:
    """As samplers hold it: all but the head in ``dtype``."""
    own = copy.deepcopy(policy)
    for name, parameter in own.named_parameters():
        if not is_float32_only(name):
            parameter.data = parameter.data.to(dtype)
    return own
