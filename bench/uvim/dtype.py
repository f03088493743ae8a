"""How far bfloat16 moves what the digit scenes' stage I decodes, and the rewards of it.

    python -m rewardtune data digits DATA --scenes-train 200 --min-digits 2 --max-digits 5 \
      --min-digit-size 13 --ink vivid --annotations panoptic
    python -m bench.uvim.dtype DATA/holdout

Each scene's own codes, and three rollouts in which a quarter of them is drawn anew: a group as a
sampler draws it, whose advantages are compared too. Without a folder: the paper's size with
random weights, whose logits are as close together as can be, and pixels alone. Prints the figures;
with a folder it writes ``uvim_dtype.jsonl``.

Axes: S rollouts, T tokens, H height, W width.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.figure import EVIDENCE, Figure, machine, write
from bench.uvim.decode import SIZES, random_stage_one
from rewardtune.datasets.frame import Framed, Square
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.records import View
from rewardtune.tasks.panoptic.task import PanopticTask
from rewardtune.tasks.uvim.codec import DecodeSettings, StageOneCodec
from rewardtune.tasks.uvim.config import INSTANCES
from rewardtune.tasks.uvim.stage_one_file import LoadedStageOne

RESULTS = EVIDENCE / "bench" / "uvim_dtype.jsonl"
STAGE_ONE = Path(__file__).resolve().parents[2] / "pretrained/digits_panoptic_stage_one.safetensors"
NUM_SCENES = 200
NUM_ROLLOUTS = 4
SHARE_DRAWN = 0.25


def reward_figures(folder: Path, *, num_scenes: int = NUM_SCENES) -> Iterator[Figure]:
    """Differences over all rollouts of the first ``num_scenes`` scenes."""
    dataset = open_dataset(folder)
    options = {"stage_one": STAGE_ONE, "decode_batch": NUM_ROLLOUTS}
    exact, coarse = (
        PanopticTask({**options, "decode_dtype": dtype}, categories=dataset.categories)
        for dtype in ("float32", "bfloat16")
    )
    size, view = exact.codec.config.input_size, View()
    rng = np.random.default_rng(0)
    rewards, pixels = [], []
    for index in range(min(num_scenes, len(dataset))):
        example = dataset.example(index)
        tokens_T = exact.target_tokens(Framed.of(example, view, Square(side=size)), rng=rng)
        tokens_ST = rollouts(tokens_T, rng, vocab_size=exact.vocabulary.size)
        framed = Framed.of(example, view, Square(side=size))
        decoded = [task.decode(tokens_ST, framed) for task in (exact, coarse)]
        scored = [
            task.score(each, framed) for task, each in zip((exact, coarse), decoded, strict=True)
        ]
        rewards.append([score.reward_S for score in scored])
        pixels.append([list(each) for each in decoded])
    yield from pixel_figures_of(*(np.array(maps) for maps in zip(*pixels, strict=True)))
    exact_GS, coarse_GS = (np.array(reward) for reward in zip(*rewards, strict=True))
    difference_GS = coarse_GS - exact_GS
    yield _figure("reward_float32", exact_GS.mean(), "segments")
    yield _figure("reward_bfloat16", coarse_GS.mean(), "segments")
    yield _figure("reward_difference", np.abs(difference_GS).mean(), "segments")
    yield _figure("reward_difference_largest", np.abs(difference_GS).max(), "segments")
    advantage_GS, moved_GS = (r - r.mean(axis=1, keepdims=True) for r in (exact_GS, coarse_GS))
    correlation = np.corrcoef(advantage_GS.ravel(), moved_GS.ravel())[0, 1]
    yield _figure("advantage_correlation", correlation, "")


def pixel_figures() -> Iterator[Figure]:
    """Pixels that differ in two pictures of random weights at the paper's size."""
    network = random_stage_one(SIZES)
    network.decoder.heads[INSTANCES].bias.zero_()  # type: ignore[operator]
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (SIZES.input_size, SIZES.input_size, 3)).astype(np.float32)
    tokens = rng.integers(1, SIZES.dict_size + 1, (2, SIZES.code_length)).astype(np.int32)
    loaded = LoadedStageOne(network, None, "random", {})
    codecs = [
        StageOneCodec(loaded, DecodeSettings(dtype="float32")),
        StageOneCodec(loaded, DecodeSettings(dtype="bfloat16")),
    ]
    yield from pixel_figures_of(*(codec.decode_panoptic(tokens, image) for codec in codecs))


def rollouts(
    tokens_T: NDArray[np.int32], rng: np.random.Generator, *, vocab_size: int
) -> NDArray[np.int32]:
    """The sequence itself and others in which some tokens are drawn at random."""
    drawn_ST = rng.integers(1, vocab_size, (NUM_ROLLOUTS, len(tokens_T)), dtype=np.int32)
    is_drawn_ST = rng.random(drawn_ST.shape) < SHARE_DRAWN
    is_drawn_ST[0] = False
    return np.where(is_drawn_ST, drawn_ST, tokens_T)


def pixel_figures_of(exact: NDArray[np.int32], coarse: NDArray[np.int32]) -> Iterator[Figure]:
    class_share, id_share = (exact != coarse).reshape(-1, 2).mean(axis=0)
    yield _figure("pixels_of_another_class", class_share, "share")
    yield _figure("pixels_of_another_id", id_share, "share")


def _figure(name: str, value: float, unit: str) -> Figure:
    return Figure(name=f"uvim.{name}", value=float(value), unit=unit, machine=machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="digit scenes, panoptic")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    found = list(pixel_figures() if folder is None else reward_figures(folder))
    for one in found:
        print(f"{one.name:<34} {one.value:10.4g} {one.unit}")
    if folder is not None:
        write(found, RESULTS)


if __name__ == "__main__":
    main()
