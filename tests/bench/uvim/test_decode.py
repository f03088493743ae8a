"""What the figures of decoding a stage I are made of; the figures themselves take minutes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench.uvim import decode as uvim_decode
from bench.uvim.decode import SIZES, gflop
from bench.uvim.dtype import SHARE_DRAWN, pixel_figures_of, rollouts
from tests.rewardtune.tasks.uvim.small import random_stage_one


def test_the_products_of_a_sample_are_those_that_torch_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = random_stage_one("panoptic")
    config = network.config
    # All logits are what the classes of as many ids as there are patches take.
    monkeypatch.setattr(uvim_decode, "NUM_IDS", config.num_patches)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        context = network.decoder.context(torch.zeros(1, config.input_size, config.input_size, 3))
        network.decoder.forward(torch.zeros(1, config.code_length, config.codeword_width), context)
    assert gflop(config, batch=1) * 1e9 == pytest.approx(counter.get_total_flops())


def test_a_sample_of_the_paper_s_size_takes_255_billion() -> None:
    assert gflop(SIZES, batch=1) == pytest.approx(255, abs=1)
    assert gflop(SIZES, batch=2) < gflop(SIZES, batch=1)


def test_the_first_rollout_is_the_annotation_and_a_share_of_the_others_is_drawn() -> None:
    tokens_T = np.full(10_000, 3, np.int32)
    found_ST = rollouts(tokens_T, np.random.default_rng(0), vocab_size=1000)
    assert found_ST.dtype == np.int32
    assert (found_ST[0] == 3).all()
    assert (found_ST[1:] != 3).mean() == pytest.approx(SHARE_DRAWN, abs=0.01)


def test_pixels_that_differ_are_counted_by_class_and_by_id() -> None:
    exact = np.zeros((2, 5, 10, 2), np.int32)
    coarse = exact.copy()
    coarse[0, 0, :, 0] = 1
    coarse[1, 0, :3, 1] = 1
    classes, ids = pixel_figures_of(exact, coarse)
    assert (classes.value, ids.value) == (0.1, 0.03)
