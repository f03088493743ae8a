"""The learner's side of tuning: one line of code whether everything is in one process or not.

Batch ``b`` is drawn with weights of version ``max(0, b - depth)`` and consumed in order;
consuming it publishes version ``b + 1``. Axes: G groups, S rollouts.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.learner import Learner, StepReport
from learner.ranks import LocalShards, ShardExchange
from learner.source import GroupSource
from rewardtune.policies.canary import canary_tokens, measure_canary
from rewardtune.policies.policy import Policy
from rewardtune.policies.weights import load_weights, pack_weights
from rewardtune.records import CanaryLogProbs, PackedWeights, Published, ScoredGroup, WeightBuffer
from rewardtune.records.weights import contiguous
from rewardtune.run.assembly import Parts, data_order, sampler_policy
from rewardtune.tasks.batch import images_in_view
from rewardtune.transport.weights.weight_store import WeightStore, WeightsUnavailable

_WATCHED_EVERY = 10
"""Published versions from one with a canary to the next."""
_CANARY_GROUPS = 4


class TuningLoop:
    """Collects a batch, learns from it, publishes: step by step."""

    def __init__(
        self,
        parts: Parts,
        *,
        term: int,
        store: WeightStore,
        source: GroupSource,
        ranks: ShardExchange | None = None,
    ) -> None:
        """Start with the policy as it is; ``restore`` publishes it.

        Args:
            ranks: who else learns; None: nobody.
        """
        self._ranks = LocalShards() if ranks is None else ranks
        self.learner = tuning_learner(parts, self._ranks)
        self._parts = parts
        self._term = term
        self._store = store
        self._source = source
        self._dtype = getattr(torch, parts.config.sampler.dtype)
        self._older: dict[int, WeightBuffer] = {}
        self._canary_policy: Policy | None = None

    def restore(self, versions: Mapping[int, PackedWeights]) -> None:
        """Publish what batches after the frontier are drawn with, the newest version included."""
        for version, weights in versions.items():
            self._older[version] = contiguous(weights)
            self._store.publish(Published(self._term, version), weights)
        self._publish()

    def behaviour(self) -> dict[int, PackedWeights]:
        now = self.learner.policy_version
        return {v: w for v, w in self._older.items() if now - self._parts.config.depth <= v < now}

    def step(self) -> tuple[StepReport, dict[str, float]] | None:
        """Consume one batch; None if it is not complete yet.

        Raises:
            RankLost: another rank is gone: restart all from the checkpoint.
        """
        exchanged = self._ranks.seconds
        collected = self._source.collect(self.learner.ledger.next_ordinals)
        if collected is None:
            # It may be late because a sampler misses weights that their store has lost.
            with contextlib.suppress(WeightsUnavailable):
                self._store.reassert()
            return None
        scored = collected.scored
        started = time.perf_counter()
        version = self.learner.policy_version
        shared = self._ranks.seconds
        images_GHWC = own_images(self._parts, self.learner, scored)
        loaded = time.perf_counter()
        report = self.learner.reinforce(scored, images_GHWC)
        learned = time.perf_counter()
        reduced = self._ranks.seconds
        published = self._publish()
        self._source.consumed(before=self.learner.ledger.next_ordinals.start)
        staleness = version - min(s.group.published.policy_version for s in scored)
        return report, {
            **collected.seconds,
            "seconds_load": loaded - started,
            "seconds_learn": learned - loaded - (reduced - shared),
            **({"seconds_exchange": reduced - exchanged} if reduced else {}),
            "seconds_publish": time.perf_counter() - learned,
            "staleness": float(staleness),
            **published,
            **reward_metrics(scored),
        }

    def _publish(self) -> dict[str, float]:
        """Put the weights where samplers find them; returns what is worth a line in the log."""
        version, depth = self.learner.policy_version, self._parts.config.depth
        weights = pack_weights(self._parts.policy, dtype=self._dtype)
        is_watched = version % _WATCHED_EVERY == 0
        canary = self._canary(weights) if is_watched else None
        self._store.publish(Published(self._term, version), weights, canary=canary)
        self._store.retire(before_version=version - depth)
        measured = {"weights_bytes": float(len(weights.data_B))}
        if is_watched and (before := self._older.get(version - 1)) is not None:
            is_changed_B = before.data_B != weights.data_B
            measured["weights_changed_bytes_ratio"] = float(is_changed_B.mean())
        self._older[version] = weights
        # One more than the depth asks for, to compare the next with.
        self._older = {v: w for v, w in self._older.items() if v >= version - max(1, depth)}
        return measured

    def _canary(self, weights: WeightBuffer) -> CanaryLogProbs:
        """What a sampler's policy must say once it has loaded these weights."""
        parts = self._parts
        if self._dtype == torch.float32:
            policy: Policy = parts.policy
        else:
            if self._canary_policy is None:
                self._canary_policy = sampler_policy(parts.policy, parts.config.sampler.dtype)
            policy = self._canary_policy
            load_weights(policy, weights)
        order = data_order(parts)
        entries = [order.entry(ordinal) for ordinal in range(_CANARY_GROUPS)]
        images_GHWC = images_in_view(
            parts.train,
            [(e.example, e.view) for e in entries],
            task=parts.task,
            framing=policy.framing,
        )
        return measure_canary(
            policy,
            range(_CANARY_GROUPS),
            torch.from_numpy(images_GHWC),
            canary_tokens(policy, num_groups=_CANARY_GROUPS),
        )


def tuning_learner(parts: Parts, ranks: ShardExchange) -> Learner:
    """One rank's, with the policy as it is."""
    return Learner(
        parts.policy,
        parts.config.learner,
        task=parts.task,
        temperature=parts.config.sampler.temperature,
        weighs_importance=parts.config.weighs_importance,
        ranks=ranks,
    )


def own_images(parts: Parts, learner: Learner, scored: Sequence[ScoredGroup]) -> Tensor:
    """Pictures [G, H, W, 3] of those groups of a batch that this rank trains on."""
    return torch.from_numpy(
        images_in_view(
            parts.train,
            [(scored[row].group.example, scored[row].group.view) for row in learner.own_rows],
            task=parts.task,
            framing=parts.policy.framing,
        )
    )


def reward_metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
    """What the rollouts of a batch earned; empty if none is valid."""
    valid = [s for s in scored if s.score.is_valid]
    if not valid:
        return {}
    reward_GS = np.stack([s.score.reward_S for s in valid])
    log_prob = np.stack([s.group.log_probs_ST for s in valid])
    components = {
        f"reward_{name}": float(np.mean([s.score.components[name].mean() for s in valid]))
        for name in valid[0].score.components
    }
    return {
        "reward": float(reward_GS.mean()),
        "reward_std": float(reward_GS.std(axis=1).mean()),
        "zero_advantage_ratio": float((np.ptp(reward_GS, axis=1) == 0).mean()),
        # Minus the mean log-prob of a token drawn from the policy estimates its entropy.
        "entropy": float(-log_prob.mean()),
        "num_samples": float(reward_GS.size),
        "num_tokens": float(log_prob.size),
        "num_repeated": float(
            sum(len(s.group.tokens_ST) - _num_distinct(s.group.tokens_ST) for s in valid)
        ),
        "sequence_length": float(log_prob.shape[-1]),
        **components,
    }


def _num_distinct(tokens_ST: NDArray[np.int32]) -> int:
    # numpy's unique of rows takes thirty times as long.
    return len({tokens_T.tobytes() for tokens_T in tokens_ST})


def step_record(
    step: int,
    report: StepReport,
    measured: Mapping[str, float],
    *,
    seconds: float,
    batch_size: int,
) -> dict[str, float]:
    """One step as the log tells it; ``seconds`` that no phase accounts for are ``other``."""
    accounted = sum(value for name, value in measured.items() if name.startswith("seconds_"))
    return {
        "step": step,
        **report.metrics,
        **measured,
        "is_skipped": float(report.is_skipped),
        "seconds": seconds,
        "seconds_other": max(0.0, seconds - accounted),
        "images_per_second": batch_size / seconds,
        "samples_per_second": measured.get("num_samples", batch_size) / seconds,
    }
