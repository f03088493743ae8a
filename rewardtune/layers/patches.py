"""Images to patch embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardtune.layers.initialize import lecun_normal_


class PatchEmbedding(nn.Module):
    """Images [N, height, width, 3] to [N, patches, D], patches row by row.

    Equals a convolution whose stride is its kernel size; the kernel is [p, p, 3, D].
    """

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.kernel = nn.Parameter(torch.empty(patch_size, patch_size, 3, width))
        self.bias = nn.Parameter(torch.zeros(width))
        lecun_normal_(self.kernel, fan_in=patch_size * patch_size * 3)

    def forward(self, images_NHWC: Tensor) -> Tensor:
        num_images, height, width, channels = images_NHWC.shape
        size = self.patch_size
        rows, columns = height // size, width // size
        patches = (
            images_NHWC.reshape(num_images, rows, size, columns, size, channels)
            .transpose(2, 3)
            .reshape(num_images, rows * columns, size * size * channels)
        )
        return F.linear(patches, self.kernel.flatten(0, 2).t(), self.bias)
