"""Published checkpoints, in every layout, into our policies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewardtune.policies.kinds.big_vision import from_published, load_big_vision, to_published
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder

if TYPE_CHECKING:
    from tests.rewardtune.policies.conftest import Reference

    Load = Callable[[str], Reference]

Arrays = dict[str, NDArray[Any]]


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    np.savez(path, **dict(arrays))  # type: ignore[arg-type]
    return path


def values(policy: EncoderDecoder) -> Arrays:
    """Weights by published name."""
    return {to_published(n): p.detach().numpy().copy() for n, p in policy.named_parameters()}


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("name", ["vtt", "vtt_eos"])
def test_names_and_values_are_those_of_vtt(reference: Load, name: str) -> None:
    vtt = reference(name)
    assert_equal(values(vtt.policy), vtt.under("params"))
    for parameter in dict(vtt.policy.named_parameters()):
        assert from_published(to_published(parameter)) == parameter


@pytest.mark.parametrize(
    "name", ["encoder.blocks.0.norm_7.scale", "encoder.blocks.x.norm_0", "decoder.norms", "head"]
)
def test_names_that_are_no_parameters_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no parameter of an encoder-decoder"):
        to_published(name)
    with pytest.raises(ValueError, match="no parameter of an encoder-decoder"):
        from_published(name.replace(".", "/"))


def test_an_augreg_checkpoint_fills_the_encoder_as_big_vision_does(reference: Load) -> None:
    augreg = reference("vit_augreg_style_ckpt")
    with np.load(augreg.path.with_name("vit_augreg_style_expected.npz")) as stored:
        expected = dict(stored)
    policy = augreg.policy
    found = values(policy)
    for name, array in expected.items():
        if name.startswith("loaded/"):
            ours = name.removeprefix("loaded/").replace("Transformer/", "encoder/")
            ours = re.sub("^embedding/", "EmbedPatches/", ours)
            ours = re.sub("^pos_embedding$", "pos_embedding_encoder", ours)
            np.testing.assert_allclose(found.pop(ours), array, rtol=0, atol=1e-6, err_msg=ours)
    assert all("decoder" in name for name in found), "part of the encoder was not compared"
    encoded = policy.encode(torch.from_numpy(expected["in/image"]))
    torch.testing.assert_close(
        encoded.detach(), torch.from_numpy(expected["out/encoded"]), rtol=0, atol=1e-5
    )


def test_a_plain_vit_leaves_the_decoder_as_it_was(reference: Load) -> None:
    augreg = reference("vit_augreg_style_ckpt")
    torch.manual_seed(1)
    policy = EncoderDecoder(augreg.policy.config)
    before = values(policy)
    load_big_vision(policy, augreg.path)
    after = values(policy)
    for name, array in before.items():
        is_decoder = name.startswith("decoder/") or name == "pos_embedding_decoder"
        assert np.array_equal(after[name], array) == is_decoder, name


def stacked(arrays: Arrays, pattern: str, name: str, *, axis: int) -> Arrays:
    """Layers whose names match ``pattern`` stacked into one array each, as ``scan`` keeps them."""
    layers: dict[str, dict[int, NDArray[Any]]] = {}
    rest = {}
    for key, array in arrays.items():
        if match := re.fullmatch(f"(.*){pattern}(\\d+)/(.*)", key):
            layers.setdefault(f"{match[1]}{name}/{match[3]}", {})[int(match[2])] = array
        else:
            rest[key] = array
    assert layers
    return rest | {
        key: np.stack([found[index] for index in range(len(found))], axis=axis)
        for key, found in layers.items()
    }


def test_scanned_layers_load_like_separate_ones(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    scanned = stacked(vtt.under("params"), "encoderblock_", "encoderblock", axis=0)
    scanned = stacked(scanned, "EncDecBlock", "EncDecBlock", axis=1)
    assert scanned["decoder/EncDecBlock/MLP/Dense_0/kernel"].shape == (32, 2, 64)
    policy = EncoderDecoder(vtt.policy.config)
    load_big_vision(policy, save(tmp_path / "scanned.npz", scanned))
    assert_equal(values(policy), values(vtt.policy))


def test_a_scanned_plain_vit_loads(reference: Load, tmp_path: Path) -> None:
    vit = reference("vit_encoder")
    scanned = stacked(vit.under("params"), "encoderblock_", "encoderblock", axis=0)
    policy = EncoderDecoder(vit.policy.config)
    load_big_vision(policy, save(tmp_path / "scanned.npz", scanned))
    encoded = policy.encode(vit.tensor("in/image")).detach()
    torch.testing.assert_close(encoded, vit.tensor("out/encoded"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_scanned", [False, True])
def test_cappa_loads(reference: Load, tmp_path: Path, is_scanned: bool) -> None:
    vtt = reference("vtt")
    cappa = {
        re.sub("^encoder/", "encoder/Transformer/", name)
        .replace("EmbedPatches", "encoder/embedding")
        .replace("pos_embedding_encoder", "encoder/pos_embedding"): array
        for name, array in vtt.under("params").items()
    }
    if is_scanned:
        cappa = stacked(cappa, "encoderblock_", "encoderblock", axis=0)
        cappa = stacked(cappa, "EncDecBlock", "EncDecBlock", axis=1)
    policy = EncoderDecoder(vtt.policy.config)
    load_big_vision(policy, save(tmp_path / "cappa.npz", cappa))
    assert_equal(values(policy), values(vtt.policy))


def test_more_than_ten_layers_keep_their_order(reference: Load, tmp_path: Path) -> None:
    config = reference("vtt_eos").policy.config
    config = config.model_copy(update={"encoder_depth": 12, "decoder_depth": 11})
    source, policy = EncoderDecoder(config), EncoderDecoder(config)
    load_big_vision(policy, save(tmp_path / "deep.npz", values(source)))
    assert_equal(values(policy), values(source))


def test_a_subtree_and_old_prefixes_load(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    for prefix, suffix in (("opt/target/", ""), ("params/img/", ":img"), ("img/enc/", ":img/enc")):
        arrays = {f"{prefix}{name}": array for name, array in vtt.under("params").items()}
        path = save(tmp_path / "file.npz", {**arrays, "state/counts": np.zeros(3)})
        policy = EncoderDecoder(vtt.policy.config)
        load_big_vision(policy, f"{path}{suffix}")
        assert_equal(values(policy), values(vtt.policy))


def test_bfloat16_weights_load(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    # The upper half of a float32, as 2-byte void: what numpy makes of JAX's bfloat16.
    halves = {
        name: (array.view(np.uint32) >> 16).astype(np.uint16).view("V2")
        for name, array in vtt.under("params").items()
    }
    policy = EncoderDecoder(vtt.policy.config)
    load_big_vision(policy, save(tmp_path / "bfloat16.npz", halves))
    for name, array in vtt.under("params").items():
        np.testing.assert_allclose(values(policy)[name], array, rtol=2**-7)


def test_position_embeddings_are_resampled_to_the_grid_of_the_policy(
    reference: Load, tmp_path: Path
) -> None:
    vtt = reference("vtt")
    arrays = vtt.under("params")
    row, column = np.mgrid[:7, :7] / 6.0  # linear: any resolution agrees on it
    ramp = np.stack([row, column] * 16, axis=-1).reshape(1, 49, 32).astype(np.float32)
    path = save(tmp_path / "grid.npz", {**arrays, "pos_embedding_encoder": ramp})
    policy = EncoderDecoder(vtt.policy.config)
    load_big_vision(policy, path)
    row, column = np.mgrid[:4, :4] / 3.0
    expected = np.stack([row, column] * 16, axis=-1).reshape(1, 16, 32)
    found = values(policy).pop("pos_embedding_encoder")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_all_that_does_not_fit_is_listed_in_one_error(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    arrays = vtt.under("params")
    del arrays["decoder/LayerNorm/bias"]
    del arrays["EmbedPatches/kernel"]
    arrays["head/kernel"] = np.zeros((3, 3), np.float32)
    arrays["decoder/EmbedTargets/embedding"] = np.zeros((18, 32), np.float32)
    arrays["pos_embedding_decoder"] = np.zeros((1, 9, 32), np.float32)
    arrays["pos_embedding_encoder"] = np.zeros((1, 15, 32), np.float32)  # no square
    path = save(tmp_path / "odd.npz", arrays)
    policy = EncoderDecoder(vtt.policy.config)
    before = values(policy)
    with pytest.raises(ValueError, match="does not fit the policy") as raised:
        load_big_vision(policy, path)
    assert str(raised.value) == (
        f"checkpoint {path} does not fit the policy: "
        "2 missing: EmbedPatches/kernel, decoder/LayerNorm/bias; "
        "1 unexpected: head/kernel; "
        "3 misshapen: decoder/EmbedTargets/embedding [18, 32] instead of [17, 32], "
        "pos_embedding_decoder [1, 9, 32] instead of [1, 12, 32], "
        "pos_embedding_encoder [1, 15, 32] instead of [1, 16, 32]. "
        "Give the policy the checkpoint's sizes, or name what to pass over in dont_load"
    )
    assert_equal(values(policy), before)


def test_a_long_list_is_cut_short(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    path = save(tmp_path / "empty.npz", {"EmbedPatches/bias": np.zeros(32, np.float32)})
    num_missing = len(list(vtt.policy.parameters())) - 1
    with pytest.raises(ValueError, match=f"{num_missing} missing: .*and {num_missing - 12} more"):
        load_big_vision(EncoderDecoder(vtt.policy.config), path)


def test_what_is_not_to_be_loaded_keeps_its_initial_value(reference: Load, tmp_path: Path) -> None:
    vtt = reference("vtt")
    policy = EncoderDecoder(vtt.policy.config.model_copy(update={"vocab_size": 23}))
    before = values(policy)
    arrays = vtt.under("params") | {"MAPHead_0/probe": np.zeros((1, 1, 32), np.float32)}
    path = save(tmp_path / "other.npz", arrays)
    skipped = "decoder/(EmbedTargets|LogitsDense)/.*"
    load_big_vision(policy, path, dont_load=[skipped, "MAPHead_0/.*"])
    for name, array in values(policy).items():
        expected = before if re.fullmatch(skipped, name) else arrays
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_pattern_that_matches_nothing_is_refused(reference: Load) -> None:
    vtt = reference("vtt")
    with pytest.raises(ValueError, match="pattern 'decoder/Logits' matches no array"):
        load_big_vision(vtt.policy, vtt.path, dont_load=["decoder/Logits"])


def test_what_big_vision_passes_over_may_be_named(reference: Load) -> None:
    augreg = reference("vit_augreg_style_ckpt")
    load_big_vision(augreg.policy, augreg.path, dont_load=["head/kernel", "head/bias", "cls"])


def test_a_policy_in_bfloat16_stays_in_it(reference: Load) -> None:
    vtt = reference("vtt")
    policy = EncoderDecoder(vtt.policy.config).bfloat16()
    load_big_vision(policy, vtt.path)
    for name, parameter in policy.named_parameters():
        assert parameter.dtype == torch.bfloat16
        assert parameter.requires_grad
        expected = torch.from_numpy(vtt.under("params")[to_published(name)]).bfloat16()
        assert torch.equal(parameter, expected)
