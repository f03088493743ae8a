"""Position embeddings against big_vision's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rewardtune.layers import resample_position_embedding, sincos2d

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
