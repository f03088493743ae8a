"""Blocks and their small parts against plain formulas; parity is tested in tests/policies."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers import DecoderBlock, Dense, Encoder, LayerNorm, Mlp, PatchEmbedding
from rewardtune.layers.initialize import lecun_normal_, xavier_uniform_


def randomise(module: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)


def test_a_dense_layer_multiplies_from_the_right() -> None:
    dense = Dense(3, 5)
    randomise(dense)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(dense(x), x @ dense.kernel + dense.bias)
    head = Dense(3, 5, is_head=True)
    assert not head.kernel.any() and not head.bias.any()


def test_layer_norm_has_the_published_epsilon() -> None:
    norm = LayerNorm(8)
    randomise(norm)
    x = torch.randn(3, 8) * 1e-3  # so small that epsilon counts
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    expected = centred / (variance + 1e-6).sqrt() * norm.scale + norm.bias
    torch.testing.assert_close(norm(x), expected)


def test_the_mlp_uses_the_tanh_form_of_gelu() -> None:
    mlp = Mlp(6, 11)
    randomise(mlp)
    x = torch.randn(4, 6)
    hidden = x @ mlp.dense_0.kernel + mlp.dense_0.bias
    inner = math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)
    hidden = 0.5 * hidden * (1 + inner.tanh())
    torch.testing.assert_close(mlp(x), hidden @ mlp.dense_1.kernel + mlp.dense_1.bias)


def test_patches_are_a_convolution_row_by_row() -> None:
    patches = PatchEmbedding(4, 7)
    randomise(patches)
    images_NHWC = torch.randn(2, 8, 12, 3)
    expected = F.conv2d(
        images_NHWC.permute(0, 3, 1, 2), patches.kernel.permute(3, 2, 0, 1), patches.bias, stride=4
    )
    expected = expected.permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(patches(images_NHWC), expected, rtol=0, atol=1e-5)


def test_a_decoder_block_adds_its_three_parts_in_order() -> None:
    block = DecoderBlock(12, 3, 20)
    randomise(block)
    x, context = torch.randn(4, 5, 12), torch.randn(2, 7, 12)
    expected = x + block.self_attention(block.norm_0(x))
    expected = expected + block.cross_attention(block.norm_1(expected), context)
    expected = expected + block.mlp(block.norm_2(expected))
    torch.testing.assert_close(block(x, context), expected)


def test_recomputing_keeps_fewer_activations_and_the_same_gradients() -> None:
    encoder = Encoder(depth=3, width=16, num_heads=2, mlp_width=64)
    randomise(encoder)
    x = torch.randn(2, 9, 16)
    kept = {False: 0, True: 0}
    gradients = []
    for recompute in kept:

        def pack(tensor: Tensor, recompute: bool = recompute) -> Tensor:
            kept[recompute] += tensor.numel()
            return tensor

        encoder.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = encoder(x, recompute=recompute)
        out.sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    assert kept[True] < kept[False] / 3
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_initialisers_have_their_moments_and_bounds() -> None:
    torch.manual_seed(0)
    kernel = xavier_uniform_(torch.empty(300, 500), fan_in=300, fan_out=500)
    bound = math.sqrt(6 / 800)
    assert 0.999 * bound < kernel.abs().max() <= bound
    assert math.isclose(float(kernel.std()), bound / math.sqrt(3), rel_tol=0.01)
    kernel = lecun_normal_(torch.empty(300, 500), fan_in=300)
    std = 1 / math.sqrt(300)
    assert math.isclose(float(kernel.std()), std, rel_tol=0.01)
    cut = 2 * std / 0.8796256610342398
    assert 0.99 * cut < kernel.abs().max() <= cut * (1 + 1e-6)
    # The shape of a cut normal: about this share lies within half of the cut.
    share = float((kernel.abs() < cut / 2).float().mean())
    assert math.isclose(share, math.erf(1 / math.sqrt(2)) / math.erf(math.sqrt(2)), abs_tol=0.005)
