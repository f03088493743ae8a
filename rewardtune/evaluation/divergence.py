"""How far tuning has taken a policy from the one it began with.

Axes: G groups (images), S sequences, T tokens.
"""

from __future__ import annotations

import torch

from rewardtune.datasets.example import Dataset
from rewardtune.evaluation.evaluate import VIEW
from rewardtune.policies.draw import Decoding, uniforms
from rewardtune.policies.policy import Policy
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.task import Task

_NUM_EXAMPLES = 32
_NUM_SAMPLES = 4


@torch.no_grad()
def kl_divergence(policy: Policy, initial: Policy, dataset: Dataset, *, task: Task) -> float:
    """Estimate of KL(policy || initial) in nats per token, from samples of ``policy``.

    On the first images of the data set, with the same draws each time.
    """
    num_groups = min(_NUM_EXAMPLES, len(dataset))
    images_GHWC = torch.from_numpy(
        images_in_view(
            dataset,
            [(index, VIEW) for index in range(num_groups)],
            task=task,
            framing=policy.framing,
        )
    ).to(next(policy.parameters()).device)
    uniforms_NT = uniforms(
        seed=0,
        ordinals_N=torch.arange(num_groups).repeat_interleave(_NUM_SAMPLES),
        rollouts_N=torch.arange(_NUM_SAMPLES).repeat(num_groups),
        sequence_length=policy.sequence_length,
    )
    samples = policy.sample(
        images_GHWC,
        uniforms_NT.unflatten(0, (num_groups, _NUM_SAMPLES)).to(images_GHWC.device),
        decoding=Decoding(),
        stop_tokens=task.vocabulary.stop_tokens,
    )
    tokens_GST = samples.tokens_GST.long()
    initial_GST = initial.log_prob(images_GHWC, tokens_GST).drawn_GST
    # After a stop token the policy's own log-prob is 0, and nothing was chosen.
    is_live_GST = samples.log_probs_GST != 0
    gap_GST = torch.where(is_live_GST, samples.log_probs_GST - initial_GST, 0.0)
    return float(gap_GST.sum() / is_live_GST.sum().clamp(min=1))
