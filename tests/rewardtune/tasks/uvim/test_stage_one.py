"""The network against numbers computed by the reference implementation."""

from __future__ import annotations

import pytest
import torch

from rewardtune.tasks.uvim.big_vision import to_published
from rewardtune.tasks.uvim.config import StageOneConfig
from rewardtune.tasks.uvim.loss import reconstruction_loss, stage_one_loss
from rewardtune.tasks.uvim.patches import ClassEmbedding, cut_channels, join_channels
from rewardtune.tasks.uvim.stage_one import StageOne
from tests.rewardtune.tasks.uvim.reference import KINDS, arrays, labels, network


@pytest.mark.parametrize("name", KINDS)
def test_codes_are_the_reference_s(name: str) -> None:
    stored, net = arrays(name), network(name)
    vector = net.encoder(labels(stored), torch.from_numpy(stored["in/ctx"]))
    expected = torch.from_numpy(stored["out/encode_bottleneck"])
    torch.testing.assert_close(vector, expected, rtol=0, atol=1e-4)
    codes = net.encode(labels(stored), torch.from_numpy(stored["in/ctx"]))
    assert torch.equal(codes, torch.from_numpy(stored["out/encode_code"]).long())
    codewords = torch.from_numpy(stored["out/codewords"])
    torch.testing.assert_close(net.codebook.codewords(), codewords, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_decoded_outputs_are_the_reference_s(name: str) -> None:
    stored, net = arrays(name), network(name)
    code, images = torch.from_numpy(stored["in/code"]), torch.from_numpy(stored["in/ctx"])
    outputs = net.decode(code, images)
    for output, found in outputs.items():
        expected = torch.from_numpy(stored[f"out/decode_logits/{output}"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    wrapped = code[:1].clone()
    wrapped[:, 0] = -1
    for output, found in net.decode(wrapped, images[:1]).items():
        expected = torch.from_numpy(stored[f"out/decode_logits_code_minus1_first/{output}"])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    loss = reconstruction_loss(outputs, labels(stored), patch_size=net.config.patch_size)
    expected = torch.from_numpy(stored["out/recon_loss_mean"])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_one_training_step_is_the_reference_s() -> None:
    stored, net = arrays("stage1_train_step"), network("stage1_train_step")
    loss = stage_one_loss(
        net,
        labels(stored),
        torch.from_numpy(stored["in/ctx"]),
        commitment_weight=float(stored["cfg/w_commitment"]),
    )
    assert loss.total.item() == pytest.approx(float(stored["out/loss"]), rel=1e-6)
    assert float(loss.reconstruction) == pytest.approx(float(stored["out/loss_rec"]), rel=1e-6)
    assert float(loss.commitment) == pytest.approx(float(stored["out/loss_commitment"]), rel=1e-6)
    assert torch.equal(loss.code_NL, torch.from_numpy(stored["out/code"]).long())
    loss.total.backward()
    gradients = {to_published(n): p.grad for n, p in net.named_parameters()}
    names = [name for name in stored if name.startswith("out/grads/")]
    assert len(names) == 9
    for name in names:
        gradient = gradients[name.removeprefix("out/grads/")]
        assert gradient is not None
        torch.testing.assert_close(gradient, torch.from_numpy(stored[name]), rtol=1e-4, atol=1e-6)


def test_a_context_serves_all_codes_of_its_image() -> None:
    stored, net = arrays("stage1_panoptic"), network("stage1_panoptic")
    code, image = torch.from_numpy(stored["in/code"]), torch.from_numpy(stored["in/ctx"][:1])
    codewords = net.codebook.lookup(code)
    shared = net.decoder(codewords, net.decoder.context(image))
    repeated = net.decode(code, image.expand(len(code), -1, -1, -1))
    for output, found in shared.items():
        torch.testing.assert_close(found, repeated[output], rtol=0, atol=1e-6)


def test_a_class_embedding_is_a_dense_layer_on_one_hot_vectors() -> None:
    torch.manual_seed(0)
    embedding = ClassEmbedding(5, 4, 6)
    labels_NHW = torch.randint(-1, 7, (2, 8, 8))
    one_hot = (labels_NHW[..., None] == torch.arange(5)).float()
    flat = cut_channels(one_hot, 4).flatten(2)
    expected = flat @ embedding.kernel.flatten(0, 1) + embedding.bias
    torch.testing.assert_close(embedding(labels_NHW), expected)


def test_patches_join_to_the_picture_they_were_cut_from() -> None:
    image = torch.randn(2, 12, 12, 3)
    assert torch.equal(join_channels(cut_channels(image, 4), 4), image)


def small(**changes: object) -> StageOneConfig:
    values: dict[str, object] = {
        "input_size": 16,
        "patch_size": 4,
        "width": 16,
        "num_heads": 2,
        "mlp_width": 16,
        "encoder_depth": 1,
        "decoder_depth": 1,
        "code_length": 4,
        "dict_size": 8,
        "codeword_width": 8,
        "outputs": {"semantics": 3, "instances": 4},
    }
    return StageOneConfig.model_validate({**values, **changes})


def test_a_bottleneck_of_matrices_mixes_all_positions() -> None:
    torch.manual_seed(0)
    net = StageOne(small(bottleneck="matrix", code_length=3))
    assert net.encoder.bottleneck is not None and net.encoder.bottleneck.shape == (16, 3)
    label = torch.randint(0, 3, (2, 16, 16))
    images = torch.randn(2, 16, 16, 3)
    code = net.encode({"semantics": label, "instances": label}, images)
    assert code.shape == (2, 3)
    assert net.decode(code, images)["instances"].shape == (2, 16, 4, 16)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"code_length": 5}, "code_length 5 is no square"),
        ({"input_size": 18}, "input_size 18 is no multiple"),
        ({"num_heads": 3}, "width 16 is no multiple"),
        ({"outputs": {"semantics": 3}}, r"outputs \['semantics'\] are neither"),
        ({"outputs": {"color": 4}}, "outputs.color must be 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        small(**changes)


def test_a_code_out_of_range_is_refused() -> None:
    net = StageOne(small())
    with pytest.raises(ValueError, match=r"codes must be in -1\.\.7, got 0\.\.8"):
        net.decode(torch.tensor([[0, 8, 1, 2]]), torch.zeros(1, 16, 16, 3))
