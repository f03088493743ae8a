"""A sampler's proof that the weights it loaded act as they did in the learner.

Bytes that arrive damaged are found by their digest; this finds what comes after: memory that
went bad, a load that mixed two versions, a kernel that computes something else.
"""

from __future__ import annotations

from torch import Tensor

from rewardtune.policies.canary import canary_error, canary_tolerance
from rewardtune.policies.policy import Policy
from rewardtune.records import WeightManifest
from rewardtune.transport.weights.weight_store import DamagedWeights


def check_canary(policy: Policy, manifest: WeightManifest, images_GHWC: Tensor) -> float:
    """The largest error in a log-prob; 0 if the manifest has no canary.

    Args:
        policy: with the manifest's weights loaded.
        images_GHWC: of the canary's ordinals, through their views, in [-1, 1].

    Raises:
        DamagedWeights: the error is above the tolerance of the policy's dtype, or not a number.
    """
    if manifest.canary is None:
        return 0.0
    error, tolerance = canary_error(policy, manifest.canary, images_GHWC), canary_tolerance(policy)
    if not error <= tolerance:
        published = manifest.published
        raise DamagedWeights(
            f"with weights {published.term}/{published.policy_version} (term/version) a log-prob "
            f"is off by {error:.3g}, more than {tolerance:g}: this sampler's weights or device are "
            f"damaged; restart it"
        )
    return error
