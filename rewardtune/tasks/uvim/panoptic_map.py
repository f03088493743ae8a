"""A decoder's output as a panoptic map: which class and which instance stands at each pixel.

Axes: N pictures, T patches, P pixels of a patch, K classes (0 is void), I instance ids,
J instance ids that occur, D width of the network, Q patches at a time.

Source: big_vision trainers/proj/uvim/panoptic_task.py; algorithm spec, section 8.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rewardtune.tasks.uvim.config import INSTANCES, SEMANTICS
from rewardtune.tasks.uvim.patches import PixelHead, join_map
from rewardtune.tasks.uvim.stage_one import CodeDecoder

_PATCHES_AT_A_TIME = 64
"""Instance logits of so many patches stand in memory: 6.6 MB of the 105 MB of a 512 px picture."""


def panoptic_maps(
    semantics_NTKP: Tensor, instances_NTIP: Tensor, *, min_fraction: float = 0.0
) -> Tensor:
    """Class and instance id at each pixel, int32 [N, T, P, 2], from all logits: the definition.

    A pixel's instance id is its most likely one, 0 included. All pixels of an id get the class
    that has the largest sum of logits over them.

    Args:
        min_fraction: an id that covers at most this share of its picture becomes (0, 0).
    """
    instance_NTP = instances_NTIP.argmax(dim=2)
    maps = []
    for semantics_TKP, instance_TP in zip(semantics_NTKP, instance_NTP, strict=True):
        num_ids = instances_NTIP.shape[2]
        logits_MK = semantics_TKP.transpose(1, 2).flatten(0, 1)
        sums_IK = logits_MK.new_zeros(num_ids, logits_MK.shape[1])
        sums_IK.index_add_(0, instance_TP.flatten(), logits_MK)
        maps.append(painted(instance_TP, sums_IK.argmax(dim=1), min_fraction=min_fraction))
    return torch.stack(maps)


@torch.no_grad()
def decode_panoptic(
    decoder: CodeDecoder, state_NTD: Tensor, *, min_fraction: float = 0.0
) -> Tensor:
    """The same maps as pictures, int32 [N, H, W, 2], without ever building the logits.

    Args:
        state_NTD: what ``CodeDecoder.states`` gave.
    """
    maps = []
    for state_TD in state_NTD:
        instance_TP = _likeliest(decoder.heads[INSTANCES], state_TD)
        class_I = _classes(decoder.heads[SEMANTICS], state_TD, instance_TP)
        maps.append(painted(instance_TP, class_I, min_fraction=min_fraction))
    return joined(torch.stack(maps), decoder.config.patch_size)


def _likeliest(head: torch.nn.Module, state_TD: Tensor) -> Tensor:
    """The channel with the largest logit at each pixel [T, P], a few patches at a time."""
    assert isinstance(head, PixelHead)
    return torch.cat(
        [
            head.forward(state_QD[None])[0].argmax(dim=1)
            for state_QD in state_TD.split(_PATCHES_AT_A_TIME)
        ]
    )


def _classes(head: torch.nn.Module, state_TD: Tensor, instance_TP: Tensor) -> Tensor:
    """The class of each instance id up to the largest that occurs.

    A sum of logits over an id's pixels is linear in the states: with m[t, j, p] = 1 where pixel
    p of patch t belongs to id j,

        sum[j, k] = sum_p (sum_t m[t, j, p] state_t) . kernel[:, k, p] + bias[k, p] sum_t m[t, j, p]

    so the states are summed first: some 5 instead of 54 GFLOP for a picture of 512 px with a
    dozen ids.
    """
    assert isinstance(head, PixelHead)
    id_J = instance_TP.unique()
    mask_TJP = (instance_TP[:, None] == id_J[:, None]).to(state_TD.dtype)
    summed_DJP = (state_TD.t() @ mask_TJP.flatten(1)).unflatten(1, mask_TJP.shape[1:])
    # In this order the kernel is read as it lies: a copy of it would be 100 MB.
    sums_JK = torch.bmm(summed_DJP, head.kernel.transpose(1, 2)).sum(dim=0)
    sums_JK = sums_JK + mask_TJP.sum(dim=0) @ head.bias.t()
    class_I = torch.zeros(int(id_J[-1]) + 1, dtype=torch.int64, device=state_TD.device)
    class_I[id_J] = sums_JK.argmax(dim=1)
    return class_I


def painted(instance_TP: Tensor, class_I: Tensor, *, min_fraction: float) -> Tensor:
    """Class and instance id at each pixel, int32 [T, P, 2]; ids that cover too little are void."""
    class_TP = class_I[instance_TP]
    painted_TP2 = torch.stack([class_TP, instance_TP], dim=-1)
    if min_fraction > 0:
        count_I = torch.bincount(instance_TP.flatten(), minlength=len(class_I))
        is_small_I = count_I <= min_fraction * instance_TP.numel()
        painted_TP2 = painted_TP2 * ~is_small_I[instance_TP][..., None]
    return painted_TP2.to(torch.int32)


def joined(map_NTP2: Tensor, patch_size: int) -> Tensor:
    """Patches to pictures [N, H, W, 2]."""
    return torch.stack([join_map(m, patch_size) for m in map_NTP2.unbind(-1)], dim=-1)
