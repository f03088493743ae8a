from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from rewardtune.layers.weight_file import METADATA_KEY, stored_tensors, write_weights


def test_a_file_holds_float32_and_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "made" / "weights"
    turned = torch.arange(6, dtype=torch.bfloat16).view(2, 3).t()
    write_weights(path, stored_tensors({"a": turned}), metadata="what it is")
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {METADATA_KEY: "what it is"}
        tensor = file.get_tensor("a")
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, turned.float())
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_others_may_read_it_as_they_may_read_any_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    write_weights(tmp_path / "weights", {"a": torch.zeros(1)}, metadata="")
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_what_was_there_stays_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_weights(path, {"a": torch.zeros(1)}, metadata="old")
    before = path.read_bytes()
    (tmp_path / "taken" / "weights").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_weights(tmp_path / "taken" / "weights", {"a": torch.ones(1)}, metadata="new")
    with pytest.raises(FileExistsError):
        write_weights(path / "below", {"a": torch.ones(1)}, metadata="new")
    assert path.read_bytes() == before
    assert [each.name for each in (tmp_path / "taken").iterdir()] == ["weights"]
