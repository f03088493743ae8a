"""Published stage-I files of every layout, and what does not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewardtune.tasks.uvim.big_vision import import_stage_one
from tests.rewardtune.tasks.uvim.reference import CODE_LENGTH, arrays, network

Arrays = dict[str, NDArray[Any]]


def saved(path: Path, stored: Arrays) -> Path:
    np.savez(path, **stored)  # type: ignore[arg-type]
    return path


def weights(name: str) -> Arrays:
    return {n: a for n, a in arrays(name).items() if n.startswith(("params/", "state/"))}


def test_sizes_follow_from_the_arrays() -> None:
    config = network("stage1_panoptic").config
    assert (config.input_size, config.patch_size, config.width) == (32, 8, 24)
    assert (config.num_heads, config.mlp_width) == (4, 48)
    assert (config.encoder_depth, config.decoder_depth) == (1, 2)
    assert (config.code_length, config.dict_size, config.codeword_width) == (4, 11, 20)
    assert config.outputs == {"semantics": 6, "instances": 5}
    assert network("stage1_color").config.outputs == {"color": 3}


def old_layout(stored: Arrays) -> Arrays:
    """As before Flax Linen: one counter over all modules of a block, capitals on top."""
    numbers = {"MultiHeadDotProductAttention_0": 1, "LayerNorm_1": 2, "MlpBlock_0": 3}
    old = {}
    for name, array in stored.items():
        for module, number in numbers.items():
            name = re.sub(f"/{module}/", f"/{module.rpartition('_')[0]}_{number}/", name)
        old[
            name.replace("params/encoder/", "params/Encoder/").replace("/decoder/", "/Decoder/")
        ] = array
    return old


def scanned(stored: Arrays) -> Arrays:
    stacks: dict[str, list[NDArray[Any]]] = {}
    rest = {}
    for name in sorted(stored):
        match = re.fullmatch(r"(.*)/encoderblock_\d+/(.*)", name)
        if match:
            stacks.setdefault(f"{match[1]}/encoderblock/{match[2]}", []).append(stored[name])
        else:
            rest[name] = stored[name]
    return rest | {name: np.stack(layers) for name, layers in stacks.items()}


@pytest.mark.parametrize("layout", [old_layout, scanned])
def test_older_layouts_load_like_the_current_one(layout: Any, tmp_path: Path) -> None:
    changed = layout(weights("stage1_panoptic"))
    assert changed.keys() != weights("stage1_panoptic").keys()
    path = saved(tmp_path / "old.npz", changed)
    found = import_stage_one(path, code_length=CODE_LENGTH).state_dict()
    for name, tensor in network("stage1_panoptic").state_dict().items():
        assert torch.equal(found[name], tensor), name


def test_a_bottleneck_of_matrices_says_how_many_codes_there_are(tmp_path: Path) -> None:
    stored = weights("stage1_color")
    rng = np.random.default_rng(0)
    stored["params/bottleneck_downsample"] = rng.normal(size=(16, 6)).astype(np.float32)
    stored["params/bottleneck_upsample"] = rng.normal(size=(6, 16)).astype(np.float32)
    net = import_stage_one(saved(tmp_path / "matrix.npz", stored))
    assert (net.config.bottleneck, net.config.code_length) == ("matrix", 6)
    image = torch.from_numpy(arrays("stage1_color")["in/labels"])
    code = net.encode({"color": image}, image)
    assert code.shape == (2, 6)
    # The definition: vectors along the patches times the matrix.
    encoder = net.encoder
    x = encoder.label_embeddings["color"](image) + encoder.context_embedding(image)
    x = encoder.trunk(x + encoder.position_embedding)
    assert encoder.bottleneck is not None
    mixed = torch.einsum("ntd,tl->nld", x, encoder.bottleneck)
    vector = encoder.head(mixed)
    vector = vector - vector.mean(-1, keepdim=True)
    vector = vector / (vector.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(encoder({"color": image}, image), vector, rtol=1e-4, atol=1e-4)


def test_all_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    stored = weights("stage1_panoptic")
    del stored["params/decoder_stem/bias"]
    stored["params/surplus"] = np.zeros(2, np.float32)
    stored["state/counts"] = np.ones(12, np.float32)
    path = saved(tmp_path / "odd.npz", stored)
    with pytest.raises(ValueError, match="does not fit") as raised:
        import_stage_one(path, code_length=CODE_LENGTH)
    message = str(raised.value)
    assert "1 missing: decoder_stem/bias" in message
    assert "1 unexpected: surplus" in message
    assert "1 misshapen: state/counts [12] instead of [11]" in message


def test_a_stage_two_is_not_taken_for_a_stage_one() -> None:
    path = Path(__file__).resolve().parents[3] / "fixtures" / "vtt.npz"
    with pytest.raises(ValueError, match="is no UViM stage I: it has no"):
        import_stage_one(path)
