"""What stage I is trained on: reconstruct labels through a row of codes.

Axes: N pictures, T patches, C channels, P pixels of a patch, L codes, E width of a codeword.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardtune.tasks.uvim.config import COLOUR
from rewardtune.tasks.uvim.patches import cut_channels, cut_map
from rewardtune.tasks.uvim.stage_one import StageOne


@dataclass(frozen=True, slots=True)
class StageOneLoss:
    total: Tensor
    """Scalar with a gradient, the mean over the batch."""
    reconstruction: Tensor
    commitment: Tensor
    vector_NLE: Tensor
    """Before quantisation, detached; with ``code_NL`` what the codebook follows."""
    code_NL: Tensor


def reconstruction_loss(
    outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], *, patch_size: int
) -> Tensor:
    """Cross entropies summed over the outputs, or the squared error of colours.

    The mean over pictures, patches and pixels. A pixel whose class is outside the range of its
    output costs 0, and counts.

    Args:
        outputs: [N, T, C, P].
        labels: [N, H, W], or [N, H, W, C] of colours.
    """
    losses = []
    for name, output_NTCP in outputs.items():
        if name == COLOUR:
            value_NTCP = cut_channels(labels[name], patch_size)
            losses.append(F.mse_loss(output_NTCP, value_NTCP))
            continue
        class_NTP = cut_map(labels[name].long(), patch_size)
        is_known = (class_NTP >= 0) & (class_NTP < output_NTCP.shape[2])
        summed = F.cross_entropy(
            output_NTCP.flatten(0, 1),
            class_NTP.where(is_known, -1).flatten(0, 1),
            ignore_index=-1,
            reduction="sum",
        )
        losses.append(summed / class_NTP.numel())
    return torch.stack(losses).sum()


def stage_one_loss(
    network: StageOne,
    labels: Mapping[str, Tensor],
    images_NHWC: Tensor,
    *,
    commitment_weight: float = 0.0,
    kept_NL: Tensor | None = None,
) -> StageOneLoss:
    """Reconstruction of a batch's labels, with a straight-through gradient at the codes.

    Uses the codebook as it is; following the batch is the caller's next step.

    Args:
        commitment_weight: of the distance between vectors and their codewords.
        kept_NL: codes that are not dropped; None: all are kept.
    """
    vector_NLE = network.encoder.forward(labels, images_NHWC)
    code_NL = network.codebook.nearest(vector_NLE.detach())
    codeword_NLE = network.codebook.lookup(code_NL)
    commitment = F.mse_loss(vector_NLE, codeword_NLE)
    through_NLE = vector_NLE + (codeword_NLE - vector_NLE).detach()
    if kept_NL is not None:
        through_NLE = through_NLE * kept_NL[..., None].to(through_NLE)
    decoder = network.decoder
    outputs = decoder.forward(through_NLE, decoder.context(images_NHWC))
    reconstruction = reconstruction_loss(outputs, labels, patch_size=network.config.patch_size)
    return StageOneLoss(
        total=reconstruction + commitment_weight * commitment,
        reconstruction=reconstruction.detach(),
        commitment=commitment.detach(),
        vector_NLE=vector_NLE.detach(),
        code_NL=code_NL,
    )
