"""Panoptic maps from states with products in bfloat16; ``panoptic_map.py`` defines them.

The head of instance ids, nine tenths of the work, is a copy in bfloat16, its pixels in runs: the
logits of a run stay in cache until each pixel has its id. They are rounded to bfloat16 before
the bias is added. Classes come from float32 sums and the float32 head, which is not copied.

Axes: as in ``panoptic_map.py``; C channels, Q pixels of a run of them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.layers.prepared import PreparedLinear
from rewardtune.tasks.uvim.config import INSTANCES, SEMANTICS
from rewardtune.tasks.uvim.head_kernel import mark_likeliest, sum_states, warm_up
from rewardtune.tasks.uvim.panoptic_map import joined, painted
from rewardtune.tasks.uvim.patches import PixelHead
from rewardtune.tasks.uvim.stage_one import CodeDecoder

_PIXELS_AT_A_TIME = 32
"""Logits of a run: 6.5 MB for a picture of 512 px. Fewer make slower kernels, more leave cache."""


class BFloat16PanopticHeads:
    """Instead of ``panoptic_map.decode_panoptic``; weights of one decoder."""

    def __init__(self, decoder: CodeDecoder) -> None:
        semantics, instances = (decoder.heads[name] for name in (SEMANTICS, INSTANCES))
        assert isinstance(semantics, PixelHead) and isinstance(instances, PixelHead)
        self._semantics = semantics
        self._patch_size = decoder.config.patch_size
        self._likeliest = BFloat16Likeliest(instances, num_patches=decoder.config.num_patches)
        warm_up()

    def __call__(self, state_NTD: Tensor, *, min_fraction: float = 0.0) -> Tensor:
        """Class and instance id at each pixel of each picture, int32 [N, H, W, 2]."""
        maps = []
        for state_TD in state_NTD:
            instance_TP = self._likeliest(state_TD)
            class_I = classes(self._semantics, state_TD, instance_TP)
            instances = torch.from_numpy(instance_TP)
            maps.append(painted(instances, class_I, min_fraction=min_fraction))
        return joined(torch.stack(maps), self._patch_size)


class BFloat16Likeliest:
    """The channel of a head with the largest logit at each pixel."""

    def __init__(self, head: PixelHead, *, num_patches: int) -> None:
        kernels = head.kernel.split(_PIXELS_AT_A_TIME, dim=2)
        self._products = [
            PreparedLinear(kernel_DCQ.flatten(1), None, dtype=torch.bfloat16, num_rows=num_patches)
            for kernel_DCQ in kernels
        ]
        self._biases = [
            bias_CQ.contiguous().numpy() for bias_CQ in head.bias.split(_PIXELS_AT_A_TIME, dim=1)
        ]

    def __call__(self, state_TD: Tensor) -> NDArray[np.int32]:
        """[T, D] to [T, P]."""
        rows_TD = state_TD.to(torch.bfloat16)
        num_pixels = sum(bias_CQ.shape[1] for bias_CQ in self._biases)
        channel_TP = np.empty((len(state_TD), num_pixels), np.int32)
        first = 0
        for product, bias_CQ in zip(self._products, self._biases, strict=True):
            logit_TCQ = product.apply(rows_TD).unflatten(1, bias_CQ.shape)
            best_Q = np.empty(bias_CQ.shape[1], np.float32)
            bits_TCQ = logit_TCQ.view(torch.uint16).numpy()  # numpy has no bfloat16
            mark_likeliest(bits_TCQ, bias_CQ, best_Q, channel_TP, first)
            first += bias_CQ.shape[1]
        return channel_TP


def classes(head: PixelHead, state_TD: Tensor, instance_TP: NDArray[np.int32]) -> Tensor:
    """The class of each instance id up to the largest that occurs, in float32.

    Like ``panoptic_map``'s, but states are summed one by one: a product with masks adds a state
    as many times as there are ids, nearly always times 0.
    """
    count_I = np.bincount(instance_TP.ravel())
    id_J = np.flatnonzero(count_I)
    place_I = np.zeros(len(count_I), np.int32)
    place_I[id_J] = np.arange(len(id_J))
    width, num_pixels = state_TD.shape[1], instance_TP.shape[1]
    sum_DJP = torch.empty(width, len(id_J), num_pixels)
    count_JP = torch.empty(len(id_J), num_pixels)
    sum_states(
        state_TD.numpy(),
        place_I[instance_TP.T.copy()],
        np.empty((len(id_J), width), np.float32),
        sum_DJP.numpy(),
        count_JP.numpy(),
    )
    logit_JK = torch.bmm(sum_DJP, head.kernel.transpose(1, 2)).sum(dim=0)
    logit_JK = logit_JK + count_JP @ head.bias.t()
    class_I = torch.zeros(len(count_I), dtype=torch.int64)
    class_I[torch.from_numpy(id_J)] = logit_JK.argmax(dim=1)
    return class_I
