"""One update of the policy from a batch of scored groups, or of annotated examples.

Axes: G groups, R trained rollouts, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from learner.config import LearnerConfig
from learner.estimators.batch import reinforce_batch
from learner.estimators.estimator import Losses
from learner.estimators.loss import live_positions, maximum_likelihood_loss
from learner.estimators.objective import objective
from learner.ledger import Ledger
from learner.not_finite import NotFinite, found_not_finite
from learner.optimizer import Optimizer
from learner.ranks import LocalShards, RankLost, ShardExchange
from learner.schedule import multiplier
from rewardtune.policies.policy import Policy, TokenLogProbs, TokenQueries
from rewardtune.records import ScoredGroup
from rewardtune.tasks.task import Task


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one batch did."""

    is_skipped: bool
    """The batch moved no weight: it held nothing valid."""
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
        self.policy = policy
        self.ledger = Ledger(batch_size=config.batch_size)
        self._config = config
        self._task = task
        self._temperature = temperature
        self._objective = objective(
            config, task=task, temperature=temperature, weighs_importance=weighs_importance
        )
        self._ranks = LocalShards() if ranks is None else ranks
        self._own_shards = self._ranks.own_shards(config.gradient_shards)
        self._parameters = dict(policy.named_parameters())
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
            NotFinite: the batch is not consumed; nothing has changed.
            ValueError: these are not as many pictures.
        """
        self._check_images(images_GHWC)
        batch = reinforce_batch(scored, task=self._task, config=self._config)

        def loss(rows: slice) -> Losses:
            part = batch.rows(rows, self._device)
            log_probs = self._log_probs(
                images_GHWC[self._own(rows)],
                part.tokens_GRT,
                queries=part.queries,
                temperature=self._temperature,
            )
            return self._objective.loss(log_probs, part)

        return self._consume(
            [s.group.ordinal for s in scored],
            loss,
            count=batch.num_valid,
            invalid=[s.group.ordinal for s in scored if not s.score.is_valid],
        )

    def maximum_likelihood(self, tokens_GT: Tensor, images_GHWC: Tensor) -> StepReport:
        """Consume one batch of annotated examples (algorithm 1 of the paper).

        Args:
            tokens_GT: of the whole batch, on every rank.
            images_GHWC: pictures of ``own_rows``.

        Raises:
            RankLost: another rank is gone: restart all from the checkpoint.
            NotFinite: the batch is not consumed; nothing has changed.
            ValueError: these are not as many pictures.
        """
        self._check_images(images_GHWC)
        tokens_GRT = tokens_GT[:, None].to(self._device)
        live_GRT = live_positions(tokens_GRT, self._task.vocabulary.stop_tokens)

        def loss(rows: slice) -> Losses:
            log_probs = self._log_probs(images_GHWC[self._own(rows)], tokens_GRT[rows])
            total = maximum_likelihood_loss(log_probs.drawn_GST, live_GRT[rows])
            return Losses(total, {"loss": total})

        return self._consume(self.ledger.next_ordinals, loss, count=len(tokens_GT), invalid=())

    def _consume(
        self,
        ordinals: Iterable[int],
        loss: Callable[[slice], Losses],
        *,
        count: int,
        invalid: Iterable[int],
    ) -> StepReport:
        """One step down the mean of ``loss`` over ``count`` groups; none where ``count`` is 0."""

        def mean(rows: slice) -> Losses:
            losses = loss(rows)
            return replace(losses, total=losses.total / count)

        # The count is that of the whole batch: all ranks agree.
        sums = self._accumulate(mean) if count else [_Sums() for _ in self._own_shards]
        means = self._means(sums, count)
        # Before the batch counts as consumed: it does not where this raises.
        metrics = self._update(loss=means["loss"]) if count else {}
        self.ledger.consume(ordinals, invalid=invalid, is_skipped=not count)
        return StepReport(not count, {**metrics, **means})

    def _log_probs(
        self,
        images_GHWC: Tensor,
        tokens_GRT: Tensor,
        *,
        queries: TokenQueries | None = None,
        temperature: float = 1.0,
    ) -> TokenLogProbs:
        is_bfloat16 = self._config.dtype == "bfloat16"
        with torch.autocast(self._device.type, torch.bfloat16, enabled=is_bfloat16):
            return self.policy.log_prob(
                images_GHWC.to(self._device),
                tokens_GRT,
                queries=queries,
                temperature=temperature,
                recompute=self._config.activation_checkpointing,
            )

    def _accumulate(self, loss: Callable[[slice], Losses]) -> list[_Sums]:
        """Gradients of all micro-batches of all ranks into ``.grad``, in the fixed order.

        Returns:
            What the losses record, of each shard of this rank.
        """
        shards: list[list[Tensor]] = []
        sums = [_Sums() for _ in self._own_shards]
        for shard, shard_sums in zip(self._own_shards, sums, strict=True):
            self._optimizer.zero_grad()
            for start in range(0, self._shard_size, self._config.micro_batch):
                first = shard * self._shard_size + start
                losses = loss(slice(first, first + self._config.micro_batch))
                shard_sums.add(losses.sums)
                losses.total.backward()
            shards.append([p.grad for p in self._trained() if p.grad is not None])
        totals = self._ranks.sum(shards)
        for parameter, total in zip(self._trained(), totals, strict=True):
            parameter.grad = total
        return sums

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

    def _update(self, *, loss: float) -> dict[str, float]:
        grad_norm = self._optimizer.grad_norm()
        self._insist_on_finite({"loss": loss, "gradient norm": grad_norm})
        rate = multiplier(self._config.schedule, self.policy_version, self._config.num_steps)
        step = self._optimizer.step(rate, grad_norm=grad_norm)
        self._insist_on_finite({"norm of the update": step.update_norm})
        return {
            "grad_norm": grad_norm,
            "update_norm": step.update_norm,
            "learning_rate": rate * self._config.optimizer.learning_rate,
        }

    def _insist_on_finite(self, values: Mapping[str, float]) -> None:
        """All ranks find the same; should their machines differ after all, none goes on alone."""
        found = found_not_finite(values)
        is_fine = bool(self._ranks.decide(int(found is None)))
        step = self.policy_version + 1
        if not is_fine:
            raise NotFinite(f"step {step}: {found or 'what rank 0 computed is not finite'}")
        if found is not None:
            raise RankLost(f"step {step}: {found} on rank {self._ranks.rank}, but not on rank 0")

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


class _Sums:
    """Sums over a shard's micro-batches, kept on the device until the step is over."""

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}

    def add(self, sums: Mapping[str, Tensor]) -> None:
        for name, tensor in sums.items():
            value = tensor.detach().float()
            self.totals[name] = self.totals[name] + value if name in self.totals else value
