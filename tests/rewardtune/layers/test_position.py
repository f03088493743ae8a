"""Position embeddings against big_vision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewardtune.layers import resample_position_embedding, sincos2d
from rewardtune.layers.position import patches_alike, tokens_alike

FIXTURE = Path(__file__).parents[2] / "fixtures" / "resize.npz"


@pytest.fixture(scope="module")
def fixture() -> dict[str, NDArray[Any]]:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_resampling_equals_big_vision(fixture: dict[str, NDArray[Any]], case: int) -> None:
    source, expected = (torch.from_numpy(fixture[f"posemb_zoom/{case}/{k}"]) for k in ("in", "out"))
    old, new = (round(value.shape[1] ** 0.5) for value in (source, expected))
    found = resample_position_embedding(source, old_grid=(old, old), new_grid=(new, new))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_resampling_keeps_corners_and_treats_axes_apart() -> None:
    torch.manual_seed(0)
    source = torch.randn(1, 6, 3)
    found = resample_position_embedding(source, old_grid=(2, 3), new_grid=(5, 7)).view(5, 7, 3)
    grid = source.view(2, 3, 3)
    torch.testing.assert_close(found[::4, ::6], grid[:, ::2])
    rows = torch.linspace(0, 1, 5)[:, None, None]
    torch.testing.assert_close(found[:, ::3], grid[:1] * (1 - rows) + grid[1:] * rows)


def test_the_same_grid_changes_nothing() -> None:
    source = torch.randn(1, 6, 3)
    assert resample_position_embedding(source, old_grid=(2, 3), new_grid=(2, 3)) is source


def test_a_grid_that_is_not_the_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="has 6 entries but grid 2x2 needs 4"):
        resample_position_embedding(torch.zeros(1, 6, 3), old_grid=(2, 2), new_grid=(3, 3))


@pytest.mark.parametrize("case", [0, 1])
def test_the_fixed_embedding_equals_big_vision(fixture: dict[str, NDArray[Any]], case: int) -> None:
    rows, columns, width = fixture[f"posemb_sincos2d/{case}/h_w_width"].tolist()
    expected = torch.from_numpy(fixture[f"posemb_sincos2d/{case}/out"])
    torch.testing.assert_close(sincos2d(rows, columns, width), expected, rtol=0, atol=1e-6)


def test_the_fixed_embedding_is_real_within_a_network_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert torch.equal(sincos2d(2, 3, 8), sincos2d(2, 3, 8).cpu())


@pytest.mark.parametrize("width", [4, 6, 10])
def test_a_width_without_two_frequencies_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"needs a width of 8, 12, 16, ..., got {width}"):
        sincos2d(2, 2, width)


@pytest.mark.parametrize("side", [6, 14, 40])
def test_patches_begin_with_near_ones_alike(side: int) -> None:
    grid = patches_alike(side, 96)[0]
    likeness = (grid @ grid.t()).numpy()
    # Further along a row, or down a column, is less alike.
    for along in (likeness[0, :4], likeness[0, ::side][:4]):
        assert (np.diff(along) < 0).all()
    # How alike two patches are is a matter of how far apart they lie, and not where.
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
    apart = (place[:, None] - place[None]).abs()
    same = likeness[(apart == torch.tensor([1.0, 2.0])).all(dim=-1).numpy()]
    assert np.ptp(same) < 1e-3
    # The slowest wave, too, tells the two ends of a row apart.
    assert (grid[0, 23] - grid[side - 1, 23]).abs() > 0.2


def test_tokens_begin_alike_and_the_same_in_a_longer_sequence() -> None:
    tokens = tokens_alike(60, 96)[0]
    likeness = (tokens @ tokens.t()).numpy()
    assert (np.diff(likeness[0, :4]) < 0).all()
    assert torch.equal(tokens_alike(12, 96)[0], tokens[:12])


def test_a_width_that_no_waves_fill_is_cut() -> None:
    assert patches_alike(2, 6).shape == (1, 4, 6)
    assert torch.equal(tokens_alike(3, 10), tokens_alike(3, 12)[..., :10])
