"""Whether a policy acts as its published weights should: log-probs of a fixed mini-batch.

The learner computes them in the samplers' dtype and publishes them; samplers compute them again.
Axes: G groups (images), S sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardtune.policies.policy import Policy
from rewardtune.records import CanaryLogProbs

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.5}
"""Largest error in one log-prob that another kind of device may make.

On one kind of machine the error is 0. With the digits' policy and log-probs down to -28, other
CPU kernels erred by 0.15 in bfloat16, and by nothing in float32. Smaller damage than this is for
the digest to find.
"""


def canary_tokens(policy: Policy, *, num_groups: int, num_samples: int = 1) -> NDArray[np.int32]:
    """Fixed sequences [G, S, T], any token but the padding 0 as likely as any other."""
    shape = (num_groups, num_samples, policy.sequence_length)
    return np.random.default_rng(0).integers(1, policy.vocab_size, shape, dtype=np.int32)


def measure_canary(
    policy: Policy, ordinals: Sequence[int], images_GHWC: Tensor, tokens_GST: NDArray[np.int32]
) -> CanaryLogProbs:
    """What the policy says, with the weights it has now, of the given mini-batch.

    Args:
        policy: with weights and products in the samplers' dtype.
        images_GHWC: of the ordinals, through their views.
    """
    return CanaryLogProbs(
        ordinals=tuple(ordinals),
        tokens_GST=tokens_GST,
        log_probs_GST=_log_probs(policy, images_GHWC, tokens_GST),
    )


def canary_error(policy: Policy, canary: CanaryLogProbs, images_GHWC: Tensor) -> float:
    """Largest difference between what the policy says and what it should.

    Where it should say nan, nan is no difference: that a run has left the numbers is for the
    learner to tell. It is nan where nan is said by one alone.

    Raises:
        ValueError: the mini-batch is not of this policy, or the images are not its.
    """
    found_GST = _log_probs(policy, images_GHWC, canary.tokens_GST)
    if found_GST.shape != canary.log_probs_GST.shape:
        raise ValueError(
            f"the canary holds log-probs {list(canary.log_probs_GST.shape)}, but the policy gives "
            f"{list(found_GST.shape)}"
        )
    expected_GST = canary.log_probs_GST
    is_same_GST = (found_GST == expected_GST) | (np.isnan(found_GST) & np.isnan(expected_GST))
    with np.errstate(invalid="ignore"):  # of infinities that are the same
        error_GST = np.where(is_same_GST, 0.0, np.abs(found_GST - expected_GST))
    # max() of numpy is nan as soon as one of them is.
    return float(error_GST.max())


def canary_tolerance(policy: Policy) -> float:
    """Of the narrowest dtype among the policy's parameters."""
    return max(TOLERANCE[parameter.dtype] for parameter in policy.parameters())


@torch.no_grad()
def _log_probs(
    policy: Policy, images_GHWC: Tensor, tokens_GST: NDArray[np.int32]
) -> NDArray[np.float32]:
    device = next(policy.parameters()).device
    tokens = torch.from_numpy(tokens_GST.astype(np.int64)).to(device)
    drawn_GST = policy.log_prob(images_GHWC.to(device), tokens).drawn_GST
    found: NDArray[np.float32] = drawn_GST.float().cpu().numpy()
    return found
