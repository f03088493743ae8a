"""Measuring a policy: decode every example, then the task's official metric.

Axes: S sequences (one per example of a batch), T tokens, Q probed tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset
from rewardtune.datasets.frame import Framed
from rewardtune.policies.draw import GREEDY, Decoding, uniforms
from rewardtune.policies.policy import Policy
from rewardtune.records import View
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.task import Task, check_score_rule

_BATCH_SIZE = 50
"""Examples decoded together. Fixed: batch shape moves bits, and figures should not."""

VIEW = View()
"""Everything is measured on the whole image, unflipped: padded, unless a run's views say other."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    metrics: Mapping[str, float]
    """The task's metrics, the main one first, and ``reward``: its mean over the examples."""
    results: Mapping[str, list[dict[str, Any]]]
    """Records of the task's official results file, by score rule."""
    metrics_by_rule: Mapping[str, Mapping[str, float]]


@torch.no_grad()
def evaluate_policy(
    policy: Policy,
    task: Task,
    dataset: Dataset,
    *,
    indices: Sequence[int],
    score_rules: Sequence[str] | None = None,
    decoding: Decoding = GREEDY,
    seed: int = 0,
    view: View = VIEW,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Decode one sequence per example and score it, without any augmentation.

    Args:
        indices: the examples.
        score_rules: how predictions are ranked; ``metrics`` are those of the first. None: the
            task's default.
        decoding: greedy unless the decoding itself is what is studied.
        seed: of the draws, where decoding samples.
        view: of every image; that of the run's ``data.views.whole``, as the policy has seen.
        progress: called with examples done and to do.

    Raises:
        ValueError: a rule that the task does not know, or no examples.
    """
    rules = tuple(score_rules or task.score_rules[:1])
    for rule in rules:
        check_score_rule(rule, task)
    if not indices:
        raise ValueError("evaluation needs at least one example: the data set is empty")
    results: dict[str, list[dict[str, Any]]] = {rule: [] for rule in rules}
    rewards: list[float] = []
    for start in range(0, len(indices), _BATCH_SIZE):
        batch = list(indices[start : start + _BATCH_SIZE])
        samples = _decode(policy, task, dataset, batch, decoding=decoding, seed=seed, view=view)
        for row, index in enumerate(batch):
            framed = Framed.of(dataset.example(index), view, policy.framing)
            decoded = task.decode(samples.tokens_ST[row : row + 1], framed)
            score = task.score(decoded, framed)
            rewards.append(float(score.reward_S[0]))
            for rule in rules:
                results[rule] += task.predict(
                    decoded,
                    samples.log_probs_ST[row],
                    samples.probe_log_probs_STQ[row],
                    framed,
                    score_rule=rule,
                )
        if progress is not None:
            progress(start + len(batch), len(indices))
    reward = float(np.mean(rewards))
    by_rule = {
        rule: {**task.evaluate(results[rule], dataset, indices=indices), "reward": reward}
        for rule in rules
    }
    return Evaluation(metrics=by_rule[rules[0]], results=results, metrics_by_rule=by_rule)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """One sequence per example of a batch, as arrays."""

    tokens_ST: NDArray[np.int32]
    log_probs_ST: NDArray[np.float32]
    probe_log_probs_STQ: NDArray[np.float32]


def _decode(
    policy: Policy,
    task: Task,
    dataset: Dataset,
    indices: Sequence[int],
    *,
    decoding: Decoding,
    seed: int,
    view: View,
) -> _Decoded:
    device = next(policy.parameters()).device
    images_GHWC = images_in_view(
        dataset, [(index, view) for index in indices], task=task, framing=policy.framing
    )
    uniforms_NT = uniforms(
        seed=seed,
        ordinals_N=torch.tensor(indices),
        rollouts_N=torch.zeros(len(indices), dtype=torch.int64),
        sequence_length=policy.sequence_length,
    )
    samples = policy.sample(
        torch.from_numpy(images_GHWC).to(device),
        uniforms_NT[:, None].to(device),
        decoding=decoding,
        probe_tokens=task.vocabulary.probe_tokens,
        stop_tokens=task.vocabulary.stop_tokens,
    )
    return _Decoded(
        tokens_ST=samples.tokens_GST[:, 0].cpu().numpy(),
        log_probs_ST=samples.log_probs_GST[:, 0].cpu().numpy(),
        probe_log_probs_STQ=samples.probe_log_probs_GSTQ[:, 0].cpu().numpy(),
    )
