"""Position embeddings: fixed, and learned ones carried to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos2d(rows: int, columns: int, width: int, *, temperature: float = 10_000.0) -> Tensor:
    """Fixed embedding [1, rows*columns, width] (big_vision models/vit.py ``posemb_sincos_2d``).

    Raises:
        ValueError: ``width`` is no multiple of 4, or has one frequency only.
    """
    if width % 4 or width < 8:
        raise ValueError(f"a sincos2d embedding needs a width of 8, 12, 16, ..., got {width}")
    # On the CPU even for a network built on the meta device: no checkpoint could fill it.
    y, x = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32, device="cpu"),
        torch.arange(columns, dtype=torch.float32, device="cpu"),
        indexing="ij",
    )
    frequency = torch.arange(width // 4, dtype=torch.float32, device="cpu")
    omega = temperature ** -(frequency / (width // 4 - 1))
    x_angle, y_angle = x.flatten()[:, None] * omega, y.flatten()[:, None] * omega
    return torch.cat([x_angle.sin(), x_angle.cos(), y_angle.sin(), y_angle.cos()], dim=1)[None]


def patches_alike(side: int, width: int) -> Tensor:
    """What learned positions of a grid [1, side*side, width] begin with: near patches are alike.

    ``sincos2d`` whose slowest wave fits the grid. At the published temperature nearly all waves
    stand still on a grid of some patches, and positions that begin as noise have to find out which
    patches are neighbours (docs/detection_digits.md).
    """
    return _sincos2d_cut(side, side, width, temperature=3.0 * side)


def tokens_alike(length: int, width: int) -> Tensor:
    """What learned positions of a sequence [1, length, width] begin with, near ones alike.

    The same for a position whatever the length, so that a longer sequence goes on from a shorter.
    """
    return _sincos2d_cut(1, length, width, temperature=10_000.0)


def _sincos2d_cut(rows: int, columns: int, width: int, *, temperature: float) -> Tensor:
    """``sincos2d`` of any width: of one that its waves do not fill, the last are cut."""
    whole = max(8, -(-width // 4) * 4)
    return sincos2d(rows, columns, whole, temperature=temperature)[..., :width]


def resample_position_embedding(
    embedding_1ND: Tensor, *, old_grid: tuple[int, int], new_grid: tuple[int, int]
) -> Tensor:
    """Carry a learned embedding to another grid: bilinear, corners on corners, no antialiasing.

    Equals ``scipy.ndimage.zoom(order=1)``, which big_vision uses.

    Raises:
        ValueError: the embedding does not have ``old_grid``'s number of entries.
    """
    if embedding_1ND.shape[1] != old_grid[0] * old_grid[1]:
        raise ValueError(
            f"position embedding has {embedding_1ND.shape[1]} entries but grid "
            f"{old_grid[0]}x{old_grid[1]} needs {old_grid[0] * old_grid[1]}"
        )
    if old_grid == new_grid:
        return embedding_1ND
    grid = embedding_1ND.unflatten(1, old_grid).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=new_grid, mode="bilinear", align_corners=True)
    return resized.permute(0, 2, 3, 1).flatten(1, 2)
