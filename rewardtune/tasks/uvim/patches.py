"""Label maps cut into patches, and put together again.

Axes: N pictures, H height, W width, T patches of a picture (row by row), C channels, P pixels
of a patch (row by row), D width of the network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers.initialize import lecun_normal_


def cut_map(map_NHW: Tensor, patch_size: int) -> Tensor:
    """[N, H, W] to [N, T, P]."""
    num, height, width = map_NHW.shape
    rows, columns = height // patch_size, width // patch_size
    return (
        map_NHW.reshape(num, rows, patch_size, columns, patch_size)
        .transpose(2, 3)
        .reshape(num, rows * columns, patch_size * patch_size)
    )


def join_map(map_NTP: Tensor, patch_size: int) -> Tensor:
    """[N, T, P] of a square picture to [N, H, W]; undoes ``cut_map``."""
    num, num_patches, _ = map_NTP.shape
    rows = round(num_patches**0.5)
    return (
        map_NTP.reshape(num, rows, rows, patch_size, patch_size)
        .transpose(2, 3)
        .reshape(num, rows * patch_size, rows * patch_size)
    )


def cut_channels(image_NHWC: Tensor, patch_size: int) -> Tensor:
    """[N, H, W, C] to [N, T, C, P]."""
    maps = [cut_map(channel, patch_size) for channel in image_NHWC.unbind(-1)]
    return torch.stack(maps, dim=2)


def join_channels(patches_NTCP: Tensor, patch_size: int) -> Tensor:
    """[N, T, C, P] to [N, H, W, C]; undoes ``cut_channels``."""
    maps = [join_map(channel, patch_size) for channel in patches_NTCP.unbind(2)]
    return torch.stack(maps, dim=-1)


class ClassEmbedding(nn.Module):
    """Maps of classes [N, H, W] to [N, T, D]; kernel [C, P, D].

    Equals a dense layer on one-hot vectors, which are never built. A class outside 0..C-1 is a
    vector of zeros.
    """

    def __init__(self, num_classes: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.kernel = nn.Parameter(torch.empty(num_classes, patch_size**2, width))
        self.bias = nn.Parameter(torch.zeros(width))
        lecun_normal_(self.kernel, fan_in=num_classes * patch_size**2)

    def forward(self, class_NHW: Tensor) -> Tensor:
        class_NTP = cut_map(class_NHW.long(), self.patch_size)
        num_classes, num_pixels, _ = self.kernel.shape
        is_known = (class_NTP >= 0) & (class_NTP < num_classes)
        pixel_P = torch.arange(num_pixels, device=class_NTP.device)
        index_NTP = class_NTP.clamp(0, num_classes - 1) * num_pixels + pixel_P
        summed = F.embedding_bag(
            index_NTP.flatten(0, 1),
            self.kernel.flatten(0, 1),
            mode="sum",
            per_sample_weights=is_known.flatten(0, 1).to(self.kernel.dtype),
        )
        embedded: Tensor = summed.unflatten(0, class_NTP.shape[:2]) + self.bias
        return embedded


class ValueEmbedding(nn.Module):
    """Maps of values [N, H, W, C] to [N, T, D]; kernel [C, P, D]."""

    def __init__(self, num_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.kernel = nn.Parameter(torch.empty(num_channels, patch_size**2, width))
        self.bias = nn.Parameter(torch.zeros(width))
        lecun_normal_(self.kernel, fan_in=num_channels * patch_size**2)

    def forward(self, value_NHWC: Tensor) -> Tensor:
        value_NTX = cut_channels(value_NHWC, self.patch_size).flatten(2)
        return F.linear(value_NTX, self.kernel.flatten(0, 1).t(), self.bias)


class PixelHead(nn.Module):
    """States [N, T, D] to what stands at each pixel of a patch [N, T, C, P]; kernel [D, C, P]."""

    def __init__(self, width: int, num_channels: int, patch_size: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(width, num_channels, patch_size**2))
        self.bias = nn.Parameter(torch.zeros(num_channels, patch_size**2))

    def forward(self, state_NTD: Tensor) -> Tensor:
        flat = F.linear(state_NTD, self.kernel.flatten(1).t(), self.bias.flatten())
        patches: Tensor = flat.unflatten(-1, self.bias.shape)
        return patches
