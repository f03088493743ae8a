"""Stage-I files: what is written is read, by mapping; damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rewardtune.tasks.uvim.stage_one_file import StageOneFileError, load_stage_one, save_stage_one
from tests.rewardtune.tasks.uvim.reference import arrays, labels, network


def test_a_network_comes_back_as_it_was(tmp_path: Path) -> None:
    path, net, stored = tmp_path / "one.safetensors", network("stage1_panoptic"), None
    save_stage_one(path, net, class_names=list("abcde"), provenance={"seed": 1})
    loaded = load_stage_one(path)
    assert loaded.network.config == net.config
    assert loaded.class_names == tuple("abcde") and loaded.provenance == {"seed": 1}
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor), name
    stored = arrays("stage1_panoptic")
    codes = loaded.network.encode(labels(stored), torch.from_numpy(stored["in/ctx"]))
    assert torch.equal(codes, torch.from_numpy(stored["out/encode_code"]).long())
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_equal_networks_are_equal_files_and_the_digest_is_the_weights(tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{n}.safetensors" for n in "abc")
    net = network("stage1_color")
    save_stage_one(first, net, class_names=None, provenance={})
    save_stage_one(second, net, class_names=None, provenance={})
    save_stage_one(third, net, class_names=None, provenance={"made": "elsewhere"})
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != third.read_bytes()
    digest = load_stage_one(first).digest
    assert digest == load_stage_one(third).digest
    with torch.no_grad():
        net.decoder.stem.bias.add_(1)
    save_stage_one(third, net, class_names=None, provenance={})
    assert digest != load_stage_one(third).digest


def _mapped_megabytes(path: Path, field: str) -> float:
    """Memory of this process that is the file's pages, of one kind."""
    total, is_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            is_file = line.endswith(str(path))
        elif is_file and name == f"{field}:":
            total += int(rest.split()[0])
    return total / 1024


def test_weights_are_the_mapped_file_and_not_a_copy(tmp_path: Path) -> None:
    path, net = tmp_path / "one.safetensors", network("stage1_panoptic")
    save_stage_one(path, net, class_names=None, provenance={})
    loaded = load_stage_one(path)
    assert sum(float(p.sum()) for p in loaded.network.parameters()) != 0
    assert _mapped_megabytes(path, "Rss") > 0
    assert _mapped_megabytes(path, "Anonymous") == 0


def test_damage_is_named(tmp_path: Path) -> None:
    path, net = tmp_path / "one.safetensors", network("stage1_panoptic")
    with pytest.raises(StageOneFileError, match="not found: set task_options.stage_one"):
        load_stage_one(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(StageOneFileError, match="is no stage I but not one of rewardtune's"):
        load_stage_one(path)
    save_stage_one(path, net, class_names=None, provenance={})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StageOneFileError, match=r"one\.safetensors is damaged"):
        load_stage_one(path)


def test_weights_that_were_damaged_or_are_not_finite_are_refused(tmp_path: Path) -> None:
    path, net = tmp_path / "one.safetensors", network("stage1_panoptic")
    save_stage_one(path, net, class_names=None, provenance={})
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StageOneFileError, match=r"one\.safetensors is damaged: .*SHA-256 differs"):
        load_stage_one(path)
    name, parameter = next(iter(net.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = float("inf")
    save_stage_one(path, net, class_names=None, provenance={})
    with pytest.raises(StageOneFileError, match=f"one.safetensors has .* not finite in '{name}'"):
        load_stage_one(path)
