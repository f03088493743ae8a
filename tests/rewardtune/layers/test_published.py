"""Files of every age and damage, read into today's layout."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rewardtune.layers.published import fix_old_layout, load_npz, split_scanned

ONE = np.ones(1, np.float32)


def save(path: Path, **arrays: NDArray[Any]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("kind", ["", "params/", "opt/target/"])
def test_parameters_are_found_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    optimizer = {"opt/0/mu/a/b": ONE, "chrono/steps": ONE} if kind else {}
    path = save(tmp_path / "a.npz", **{f"{kind}a/b": 2 * ONE}, **optimizer)
    loaded = load_npz(path)
    assert loaded == {"a/b": 2}


def test_state_is_kept_beside_parameters(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", **{"params/a": ONE, "state/counts": 3 * ONE, "opt/a": ONE})
    assert load_npz(str(path)) == {"a": 1, "state/counts": 3}


def test_a_subtree_is_loaded_without_its_prefix(tmp_path: Path) -> None:
    arrays = {"params/img/a": ONE, "params/img/b/c": 2 * ONE, "params/imgs/a": ONE}
    path = save(tmp_path / "a.npz", **arrays)
    assert load_npz(f"{path}:img") == {"a": 1, "b/c": 2}
    assert load_npz(f"{path}:img/b") == {"c": 2}
    with pytest.raises(ValueError, match=r"no parameters below 'txt/': it holds params"):
        load_npz(f"{path}:txt")


def test_an_existing_file_wins_over_a_subtree(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz:img", a=ONE)
    path = Path(f"{path}.npz")  # numpy appends it
    path = path.rename(tmp_path / "a.npz:img")
    assert load_npz(path) == {"a": 1}


def test_bfloat16_becomes_float32_exactly(tmp_path: Path) -> None:
    exact = np.array([[1.0, -2.5, 0.0], [3e38, 1e-40, -3e-39]], np.float32)
    half = (exact.view(np.uint32) >> 16).astype(np.uint16)
    widened = (half.astype(np.uint32) << 16).view(np.float32)
    path = save(tmp_path / "a.npz", a=half.view("V2"), b=half[0, 0].view("V2"))
    loaded = load_npz(path)
    assert loaded["a"].dtype == np.float32
    np.testing.assert_array_equal(loaded["a"], widened)
    assert loaded["b"] == 1.0
    assert loaded["b"].shape == ()


@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_an_array_that_is_not_finite_is_refused_by_its_name(tmp_path: Path, number: float) -> None:
    good, bad = np.ones(3, np.float32), np.array([1.0, number], np.float16)
    path = save(tmp_path / "a.npz", good=good, **{"encoder/bad": bad})
    with pytest.raises(ValueError, match=rf"{path} has numbers .* not finite in 'encoder/bad'"):
        load_npz(path)


def test_other_types_stay(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", a=np.ones(1, np.float16), b=np.ones(1, np.int64))
    assert {name: array.dtype.name for name, array in load_npz(path).items()} == {
        "a": "float16",
        "b": "int64",
    }


def test_optimizer_state_is_not_read(tmp_path: Path) -> None:
    """It is twice as large as what we need, and here it is unreadable."""
    path = save(tmp_path / "a.npz", **{"params/a": ONE, "opt/mu": 1234.5 * np.ones(99, np.float32)})
    raw = path.read_bytes().replace(np.float32(1234.5).tobytes(), np.float32(9.0).tobytes())
    path.write_bytes(raw)
    assert load_npz(path) == {"a": 1}
    with zipfile.ZipFile(path) as file:
        assert file.testzip() == "opt/mu.npy"


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"checkpoint .*none.npz not found"):
        load_npz(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"none.npz not found"):
        load_npz(f"{tmp_path}/none.npz:img")
    path = save(tmp_path / "a.npz", a=1234.5 * np.ones(99, np.float32))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=r"a.npz is no .npz file, or a truncated one"):
        load_npz(path)
    path.write_bytes(raw.replace(np.float32(1234.5).tobytes(), np.float32(9.0).tobytes()))
    with pytest.raises(ValueError, match=r"a.npz is damaged: Bad CRC"):
        load_npz(path)
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"a.npz is no .npz file"):
        load_npz(path)
    np.savez(path, a=np.array([object()]))
    with pytest.raises(ValueError, match=r"a.npz is damaged: Object arrays"):
        load_npz(path)
    np.savez_compressed(path, a=np.random.default_rng(0).normal(size=999))
    squeezed = bytearray(path.read_bytes())
    squeezed[300:320] = b"\xff" * 20
    path.write_bytes(squeezed)
    with pytest.raises(ValueError, match=r"a.npz is damaged"):
        load_npz(path)


def test_shared_counters_are_renumbered_by_class_at_every_level() -> None:
    old = [
        "Transformer/encoderblock_0/LayerNorm_0/scale",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/out/bias",
        "Transformer/encoderblock_0/LayerNorm_2/scale",
        "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel",
        "Transformer/encoderblock_0/MlpBlock_3/Dense_1/kernel",
        "Transformer/encoderblock_9/LayerNorm_2/scale",
        "Transformer/encoderblock_9/LayerNorm_10/scale",
        "Transformer/encoderblock_10/LayerNorm_0/scale",
        "Transformer/encoder_norm/scale",
    ]
    fixed = fix_old_layout({name: np.array(index) for index, name in enumerate(old)})
    assert [name for name, _ in sorted(fixed.items(), key=lambda item: int(item[1]))] == [
        "Transformer/encoderblock_0/LayerNorm_0/scale",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/bias",
        "Transformer/encoderblock_0/LayerNorm_1/scale",
        "Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel",
        "Transformer/encoderblock_0/MlpBlock_0/Dense_1/kernel",
        "Transformer/encoderblock_1/LayerNorm_0/scale",
        "Transformer/encoderblock_1/LayerNorm_1/scale",
        "Transformer/encoderblock_2/LayerNorm_0/scale",
        "Transformer/encoder_norm/scale",
    ]


def test_current_layouts_stay_as_they_are() -> None:
    names = [
        "pos_embedding",
        "cls",
        "embedding/kernel",
        "MAPHead_0/probe",
        "decoder/EncDecBlock11/LayerNorm1/scale",
        "Transformer/encoderblock/MlpBlock_0/Dense_0/kernel",
        "Transformer/encoderblock/MlpBlock_0/Dense_1/kernel",
        *(f"Transformer/encoderblock_{i}/LayerNorm_{n}/scale" for i in range(12) for n in range(2)),
    ]
    arrays = {name: np.full((1, 9, 2), index) for index, name in enumerate(names)}
    fixed = fix_old_layout(arrays)
    assert {name: id(array) for name, array in fixed.items()} == {
        name: id(array) for name, array in arrays.items()
    }


@pytest.mark.parametrize("place", ["Transformer/posembed_input/", "Transformer/", ""])
@pytest.mark.parametrize("has_cls", [False, True])
def test_the_class_tokens_position_goes_to_the_class_token(place: str, has_cls: bool) -> None:
    position = np.arange(20, dtype=np.float32).reshape(1, 10, 2)
    arrays = {"Transformer/encoder_norm/bias": ONE, f"{place}pos_embedding": position}
    cls = np.array([[[10.0, 20.0]]])
    fixed = fix_old_layout(arrays | ({"cls": cls} if has_cls else {}))
    np.testing.assert_array_equal(fixed["pos_embedding"], position[:, 1:])
    assert ("cls" in fixed) == has_cls
    if has_cls:
        np.testing.assert_array_equal(fixed["cls"], [[[10.0, 21.0]]])
        assert cls[0, 0, 1] == 20  # the caller's is untouched
    assert not any("posembed_input" in name for name in fixed)


def test_a_pooling_head_at_the_top_moves_into_its_module() -> None:
    old = [
        "Transformer/encoder_norm/bias",
        "probe",
        "MlpBlock_2/Dense_0/kernel",
        "MultiHeadDotProductAttention_0/out/bias",
        "LayerNorm_1/bias",
        "head/bias",
    ]
    assert fix_old_layout(dict.fromkeys(old, ONE)).keys() == {
        "Transformer/encoder_norm/bias",
        "MAPHead_0/probe",
        "MAPHead_0/MlpBlock_0/Dense_0/kernel",
        "MAPHead_0/MultiHeadDotProductAttention_0/out/bias",
        "MAPHead_0/LayerNorm_0/bias",
        "head/bias",
    }


def test_scanned_layers_are_split_without_copying() -> None:
    kernel = np.arange(24).reshape(2, 3, 4)
    arrays: dict[str, NDArray[Any]] = {
        "encoder/encoderblock/a/kernel": kernel,
        "decoder/EncDecBlock/a/kernel": kernel,
        "encoder/encoder_norm/scale": ONE,
        "encoderblock/scale": kernel[:, 0],
    }
    split = split_scanned(arrays)
    assert split.keys() == {
        *(f"encoder/encoderblock_{index}/a/kernel" for index in range(2)),
        *(f"decoder/EncDecBlock{index}/a/kernel" for index in range(3)),
        *(f"encoderblock_{index}/scale" for index in range(2)),
        "encoder/encoder_norm/scale",
    }
    np.testing.assert_array_equal(split["encoder/encoderblock_1/a/kernel"], kernel[1])
    np.testing.assert_array_equal(split["decoder/EncDecBlock2/a/kernel"], kernel[:, 2])
    assert np.shares_memory(split["decoder/EncDecBlock2/a/kernel"], kernel)
