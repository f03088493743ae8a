"""Tokens through a stage I: the same bits alone, in any company, and on any number of threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rewardtune.tasks.uvim.codec import DecodeSettings, StageOneCodec, open_codec
from rewardtune.tasks.uvim.panoptic_map import panoptic_maps
from rewardtune.tasks.uvim.patches import join_map
from rewardtune.tasks.uvim.stage_one_file import StageOneFileError, load_stage_one
from tests.rewardtune.tasks.uvim.small import SIZE, random_stage_one, write_stage_one


def codec(folder: Path, kind: str, **settings: object) -> StageOneCodec:
    return StageOneCodec(
        load_stage_one(write_stage_one(folder, kind)),
        DecodeSettings(**settings),  # type: ignore[arg-type]
    )


def image(seed: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (SIZE, SIZE, 3)).astype(np.float32)


def tokens(num: int, seed: int = 2) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.random.default_rng(seed).integers(0, 11, (num, 4)).astype(np.int32)


def test_decoding_is_the_network_s(tmp_path: Path) -> None:
    found = codec(tmp_path, "panoptic", batch=3).decode_panoptic(tokens(5), image())
    net = random_stage_one("panoptic")
    code = torch.from_numpy(tokens(5)).long() - 1  # token 0 is code -1: the last
    with torch.no_grad():
        logits = net.decode(code, torch.from_numpy(image())[None].expand(5, -1, -1, -1))
    maps = panoptic_maps(logits["semantics"], logits["instances"])
    expected = torch.stack([join_map(m, 8) for m in maps.unbind(-1)], dim=-1)
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_sequence_s_picture_does_not_depend_on_its_batch_mates(
    tmp_path: Path, batch: int, dtype: str
) -> None:
    panoptic = codec(tmp_path, "panoptic", batch=batch, dtype=dtype)
    colours = codec(tmp_path, "colorization", batch=batch, dtype=dtype)
    drawn = tokens(8)
    together = [c(drawn, image()) for c in (panoptic.decode_panoptic, colours.decode_colours)]
    for row in range(8):
        np.testing.assert_array_equal(
            panoptic.decode_panoptic(drawn[row : row + 1], image())[0], together[0][row]
        )
        alone = colours.decode_colours(drawn[row : row + 1], image())[0]
        np.testing.assert_array_equal(alone, together[1][row])
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(colours.decode_colours(drawn[order], image()), together[1][order])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bits_do_not_depend_on_the_process_s_threads_and_these_are_left_as_they_were(
    tmp_path: Path, dtype: str
) -> None:
    before = torch.get_num_threads()
    try:
        found, maps = [], []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            colours = codec(tmp_path, "colorization", batch=2, dtype=dtype)
            panoptic = codec(tmp_path, "panoptic", batch=2, dtype=dtype)
            found.append(colours.decode_colours(tokens(3), image()))
            maps.append(panoptic.decode_panoptic(tokens(3), image()))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(maps[0], maps[1])


def test_bfloat16_is_close(tmp_path: Path) -> None:
    exact = codec(tmp_path, "colorization").decode_colours(tokens(3), image())
    coarse = codec(tmp_path, "colorization", dtype="bfloat16").decode_colours(tokens(3), image())
    difference = np.abs(exact - coarse)
    assert 0 < difference.max() < 0.2 and difference.mean() < 0.02


def test_a_panoptic_map_in_bfloat16_is_float32_s_at_most_pixels(tmp_path: Path) -> None:
    exact = codec(tmp_path, "panoptic").decode_panoptic(tokens(8), image())
    coarse = codec(tmp_path, "panoptic", dtype="bfloat16").decode_panoptic(tokens(8), image())
    assert (exact != coarse).mean() < 0.03


def test_labels_are_encoded_alike_in_both_dtypes(tmp_path: Path) -> None:
    found = [
        codec(tmp_path, "colorization", dtype=dtype).encode({"color": image(5)}, image(6))
        for dtype in ("float32", "bfloat16")
    ]
    np.testing.assert_array_equal(found[0], found[1])


def test_labels_are_encoded_to_tokens_from_one(tmp_path: Path) -> None:
    colours = codec(tmp_path, "colorization")
    net = random_stage_one("colorization")
    picture = torch.from_numpy(image(5))[None]
    code = net.encode({"color": picture}, torch.from_numpy(image(6))[None])
    found = colours.encode({"color": image(5)}, image(6))
    np.testing.assert_array_equal(found, code[0].numpy() + 1)
    assert found.dtype == np.int32 and found.min() >= 1 and found.max() <= 10


@pytest.mark.parametrize(
    ("drawn", "complaint"),
    [
        (np.zeros((2, 5), np.int32), r"sequences must be \[S, 4\], got \[2, 5\]"),
        (np.full((2, 4), 11, np.int32), r"tokens must be in 0\.\.10, got 11\.\.11"),
        (np.full((2, 4), -1, np.int32), r"tokens must be in 0\.\.10, got -1\.\.-1"),
    ],
)
def test_tokens_of_another_stage_one_are_refused(
    tmp_path: Path, drawn: np.ndarray[tuple[int, ...], np.dtype[np.int32]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        codec(tmp_path, "panoptic").decode_panoptic(drawn, image())


def test_an_unchanged_file_is_opened_once(tmp_path: Path) -> None:
    path = write_stage_one(tmp_path, "panoptic")
    assert open_codec(path, DecodeSettings()) is open_codec(path, DecodeSettings())
    assert open_codec(path, DecodeSettings(batch=2)) is not open_codec(path, DecodeSettings())
    with pytest.raises(StageOneFileError, match="not found"):
        open_codec(tmp_path / "none.safetensors", DecodeSettings())
