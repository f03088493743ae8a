"""One update of the policy from a batch of scored groups, or of annotated examples.

Axes: G groups, R trained rollouts, T tokens, P positions or steps, K token ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learner.advantage import advantages
from learner.batch import ReinforceBatch, reinforce_batch
from learner.config import LearnerConfig
from learner.ledger import Ledger
from learner.loss import (
    expected_rewards,
    importance_weights,
    listed_tokens_loss,
    live_positions,
    maximum_likelihood_loss,
    reinforce_loss,
    soft_target_loss,
)
from learner.optimizer import Optimizer
from learner.ranks import LocalShards, ShardExchange
from learner.schedule import multiplier
from rewardtune.policies.policy import Policy, TokenQueries
from rewardtune.records import ScoredGroup
from rewardtune.tasks.task import Task, TokenRewardsTask


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one batch did."""

    is_skipped: bool
    """The batch moved no weight: its gradient was not finite, or it held nothing valid."""
    metrics: Mapping[str, float]


class Learner:
    """Holds the master weights; consumes batches in order and counts them.

    Gradients are summed micro-batch by micro-batch within each shard and then shard by shard,
    always in the same order: how the work is shared out does not move a bit. So a learner may
    be several ranks, each in a process of its own, that start alike and make the same calls.
    """

    def __init__(
        self,
        policy: Policy,
        config: LearnerConfig,
        *,
        task: Task,
        temperature: float = 1.0,
        weighs_importance: bool = False,
        ranks: ShardExchange | None = None,
    ) -> None:
        """Start afresh with the policy's weights, which the learner owns from here on.

        Args:
            config: durations of the schedule in steps.
            temperature: at which rollouts are drawn. It is this distribution that is tuned: the
                gradient of another's log-probs would not be that of the expected reward.
            weighs_importance: correct rollouts of older versions by a truncated weight.
            ranks: who else computes shards of the gradient; None: nobody.

        Raises:
            ValueError: the shards cannot be shared out evenly, or the settings cannot use the
                task's rewards of tokens that were not drawn.
        """
        if isinstance(task, TokenRewardsTask) and task.has_token_rewards:
            config.check_token_rewards()
        self.policy = policy
        self.ledger = Ledger(batch_size=config.batch_size)
        self._config = config
        self._task = task
        self._temperature = temperature
        self._weighs_importance = weighs_importance
        self._ranks = LocalShards() if ranks is None else ranks
        self._own_shards = self._ranks.own_shards(config.gradient_shards)
        self._parameters = dict(policy.module.named_parameters())
        self._optimizer = Optimizer(self._parameters, config.optimizer)
        self._device = next(iter(self._parameters.values())).device

    @property
    def policy_version(self) -> int:
        """Batches consumed."""
        return self.ledger.num_batches

    @property
    def own_rows(self) -> range:
        """The rows of a batch whose images this rank needs: all, if it is alone."""
        size = self._shard_size
        return range(self._own_shards.start * size, self._own_shards.stop * size)

    def reinforce(self, scored: Sequence[ScoredGroup], images_GHWC: Tensor) -> StepReport:
        """Consume one batch of scored groups (algorithm 2 of the paper).

        Args:
            scored: the groups of ``ledger.next_ordinals``, in that order; whole, on every rank.
            images_GHWC: pictures of ``own_rows`` through their views, in [-1, 1].

        Raises:
            RankLost: another rank is gone: restart all from the checkpoint.
            ValueError: these are not as many pictures.
        """
        self._check_images(images_GHWC)
        batch = reinforce_batch(
            scored,
            task=self._task,
            estimator=self._config.estimator,
            has_baseline=self._config.baseline,
            discount=self._config.discount,
        )
        sums = self._sums()
        num_valid = batch.num_valid
        if num_valid:  # of the whole batch: all ranks agree

            def loss(rows: slice) -> Tensor:
                own = self._own(rows)
                shard = sums[own.start // self._shard_size]
                total = self._reinforce_loss(batch, images_GHWC[own], rows, sums=shard)
                return total / num_valid

            self._accumulate(loss)
        update = self._update(has_gradient=num_valid > 0)
        self.ledger.consume(
            [s.group.ordinal for s in scored],
            invalid=[s.group.ordinal for s in scored if not s.score.is_valid],
            is_skipped=update.is_skipped,
        )
        return StepReport(update.is_skipped, {**update.metrics, **self._means(sums, num_valid)})

    def maximum_likelihood(self, tokens_GT: Tensor, images_GHWC: Tensor) -> StepReport:
        """Consume one batch of annotated examples (algorithm 1 of the paper).

        Args:
            tokens_GT: of the whole batch, on every rank.
            images_GHWC: pictures of ``own_rows``.

        Raises:
            RankLost: another rank is gone: restart all from the checkpoint.
            ValueError: these are not as many pictures.
        """
        self._check_images(images_GHWC)
        tokens_GRT = tokens_GT[:, None].to(self._device)
        live_GRT = live_positions(tokens_GRT, self._task.stop_token)
        sums = self._sums()
        num_examples = len(tokens_GT)

        def loss(rows: slice) -> Tensor:
            own = self._own(rows)
            with self._autocast():
                log_probs = self.policy.log_prob(
                    images_GHWC[own].to(self._device),
                    tokens_GRT[rows],
                    recompute=self._config.activation_checkpointing,
                )
            total = maximum_likelihood_loss(log_probs.drawn_GST, live_GRT[rows])
            sums[own.start // self._shard_size].add("loss", total)
            return total / num_examples

        self._accumulate(loss)
        update = self._update(has_gradient=True)
        self.ledger.consume(self.ledger.next_ordinals, invalid=(), is_skipped=update.is_skipped)
        return StepReport(update.is_skipped, {**update.metrics, **self._means(sums, num_examples)})

    def _reinforce_loss(
        self, batch: ReinforceBatch, images: Tensor, rows: slice, *, sums: _Sums
    ) -> Tensor:
        tokens_GRT = batch.tokens_GRT[rows].to(self._device)
        valid_G = batch.is_valid_G[rows].to(self._device)
        advantage_GRP = batch.advantage_GRP[rows].to(self._device)
        behaviour_GRT = batch.behaviour_log_prob_GRT[rows].to(self._device)
        targets, alternatives = batch.targets, batch.alternatives
        asked = [part.queries for part in (targets, alternatives) if part is not None]
        with self._autocast():
            log_probs = self.policy.log_prob(
                images.to(self._device),
                tokens_GRT,
                queries=_joined(asked, self._device),
                temperature=self._temperature,
                recompute=self._config.activation_checkpointing,
            )
        drawn_GRT = log_probs.drawn_GST
        queried = _parted(asked, log_probs.queried_GSPK)
        live_GRT = live_positions(tokens_GRT, self._task.stop_token) * valid_G[:, None, None]
        weight_GRP = valid_G[:, None, None].expand_as(advantage_GRP)
        if alternatives is not None:
            listed_GRPK = (queried.pop() / self._temperature).log_softmax(dim=-1)
            reward_GRPK = alternatives.reward_GRPK[rows].to(self._device)
            at_GRP = tokens_GRT[..., alternatives.queries.positions_P]
            is_drawn_GRPK = at_GRP[..., None] == alternatives.queries.token_ids_K.to(self._device)
            expected_GRP = expected_rewards(
                listed_GRPK,
                reward_GRPK,
                is_drawn_GRPK,
                alternatives.drawn_reward_GRP[rows].to(self._device),
            )
            advantage_GRP = weight_GRP * advantages(
                expected_GRP,
                estimator=self._config.estimator,
                has_baseline=self._config.baseline,
            )
        if self._weighs_importance:
            ratio_GRP = importance_weights(
                drawn_GRT, behaviour_GRT, live_GRT, num_steps=advantage_GRP.shape[-1]
            )
            weight_GRP, advantage_GRP = weight_GRP * ratio_GRP, advantage_GRP * ratio_GRP
            mean_G, square_G = ratio_GRP.mean(dim=(1, 2)), (ratio_GRP**2).mean(dim=(1, 2))
            sums.add("importance_weight_mean", (mean_G * valid_G).sum())
            sums.add("importance_weight_square", (square_G * valid_G).sum())
        policy_gradient = reinforce_loss(drawn_GRT, advantage_GRP, live_GRT)
        if alternatives is not None:
            policy_gradient = policy_gradient + listed_tokens_loss(
                listed_GRPK,
                reward_GRPK,
                is_drawn_GRPK,
                advantage_GRP,
                weight_GRP,
                length=tokens_GRT.shape[-1],
            )
        total = self._config.reward_weight * policy_gradient
        sums.add("reinforce_loss", policy_gradient)
        if targets is not None:
            soft = soft_target_loss(
                queried[0], targets.probability_GRPK[rows].to(self._device), valid_G
            )
            total = total + targets.weight * soft
            sums.add("soft_target_loss", soft)
        sums.add("loss", total)
        gap_GRT = (drawn_GRT.detach() - behaviour_GRT).abs() * live_GRT
        sums.add("log_prob_gap", gap_GRT.mean(dim=(1, 2)).sum())
        return total

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._device.type, torch.bfloat16, enabled=self._config.dtype == "bfloat16"
        )

    def _accumulate(self, loss: Callable[[slice], Tensor]) -> None:
        """Gradients of all micro-batches of all ranks into ``.grad``, in the fixed order."""
        shards: list[list[Tensor]] = []
        for shard in self._own_shards:
            self._optimizer.zero_grad()
            for start in range(0, self._shard_size, self._config.micro_batch):
                first = shard * self._shard_size + start
                loss(slice(first, first + self._config.micro_batch)).backward()
            shards.append([p.grad for p in self._trained() if p.grad is not None])
        totals = self._ranks.sum(shards)
        for parameter, total in zip(self._trained(), totals, strict=True):
            parameter.grad = total

    def _sums(self) -> list[_Sums]:
        """One for each shard of this rank."""
        return [_Sums() for _ in self._own_shards]

    def _means(self, sums: Sequence[_Sums], count: int) -> dict[str, float]:
        """Over the whole batch, on every rank."""
        totals = self._ranks.sum([list(shard.totals.values()) for shard in sums])
        names = sums[0].totals
        return {name: float(total) / count for name, total in zip(names, totals, strict=True)}

    @property
    def _shard_size(self) -> int:
        return self._config.batch_size // self._config.gradient_shards

    def _check_images(self, images_GHWC: Tensor) -> None:
        if len(images_GHWC) != len(self.own_rows):
            raise ValueError(
                f"this rank trains on rows {self.own_rows.start}..{self.own_rows.stop - 1} of the "
                f"batch and needs their {len(self.own_rows)} pictures, got {len(images_GHWC)}"
            )

    def _own(self, rows: slice) -> slice:
        """Rows of the batch as rows of this rank's images."""
        first = self.own_rows.start
        return slice(rows.start - first, rows.stop - first)

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self._parameters.values() if p.requires_grad]

    def _update(self, *, has_gradient: bool) -> StepReport:
        if not has_gradient:
            return StepReport(is_skipped=True, metrics={})
        grad_norm = self._optimizer.grad_norm()
        # All ranks find the same; should their machines differ after all, none goes on alone.
        if not self._ranks.decide(int(math.isfinite(grad_norm))):
            return StepReport(is_skipped=True, metrics={"grad_norm": grad_norm})
        rate = multiplier(self._config.schedule, self.policy_version, self._config.num_steps)
        step = self._optimizer.step(rate, grad_norm=grad_norm)
        return StepReport(
            is_skipped=False,
            metrics={
                "grad_norm": grad_norm,
                "update_norm": step.update_norm,
                "learning_rate": rate * self._config.optimizer.learning_rate,
            },
        )

    def weights(self) -> dict[str, Tensor]:
        """The master weights by name; live tensors."""
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Optimizer tensors (live) and the ledger, for a checkpoint beside ``weights``."""
        return self._optimizer.state_dict(), self.ledger.to_state()

    @torch.no_grad()
    def restore(
        self,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        ledger: dict[str, Any],
    ) -> None:
        """Continue where ``state`` was taken, bit for bit."""
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
        self._optimizer.load_state_dict(optimizer)
        self.ledger = Ledger.from_state(ledger)


def _joined(asked: Sequence[TokenQueries], device: torch.device) -> TokenQueries | None:
    """One query for all positions and tokens of several: the head's logits are there anyway."""
    if not asked:
        return None
    return TokenQueries(
        positions_P=torch.cat([queries.positions_P for queries in asked]).to(device),
        token_ids_K=torch.cat([queries.token_ids_K for queries in asked]).to(device),
    )


def _parted(asked: Sequence[TokenQueries], found_GRPK: Tensor | None) -> list[Tensor]:
    """The answers to each of the queries that were joined."""
    if found_GRPK is None:
        return []
    rows = found_GRPK.split([len(queries.positions_P) for queries in asked], dim=2)
    widths = [len(queries.token_ids_K) for queries in asked]
    return [part.split(widths, dim=3)[i] for i, part in enumerate(rows)]


class _Sums:
    """Sums over a shard's micro-batches, kept on the device until the step is over."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        self.totals[name] = self.totals[name] + value if name in self.totals else value
