"""The whole loop in one process: read this first.

Batch ``b`` is drawn with weights of version ``max(0, b - depth)``, scored, and consumed in
order; consuming it publishes version ``b + 1``. At most ``depth + 1`` batches are in flight.
Axes: G groups, T tokens, H height, W width, C colours.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learner.checkpoint import prune, save_checkpoint
from learner.learner import Learner, StepReport
from policies.draw import GREEDY, Decoding
from policies.policy_file import save_policy
from policies.weights import pack_weights, unpack_tensor
from records import PackedTensor, Published, ScoredGroup
from reward_workers.score import score_group
from rewardtune.assembly import Parts, assemble, sampler_policy
from rewardtune.config import RunConfig
from rewardtune.evaluation import evaluate_policy
from rewardtune.run_directory import RunDirectory, open_run
from rewardtune.run_log import RunLog
from rewardtune.stopping import StopFlag, stop_on_signal
from sampler.sampler import Sampler
from tasks.batch import images_in_view
from tasks.order import DataOrder
from transport.weight_store import MemoryWeightStore

# Added to the run's seed, so that target orders do not follow the draws of the data order.
_TARGET_STREAM = 0x7461726765740000


@dataclass(frozen=True, slots=True)
class RunResult:
    directory: Path
    policy_path: Path
    """The policy to use: best on the holdout set where there is one, else the last."""
    metrics: Mapping[str, float]
    """Holdout metrics of that policy; empty without a holdout set."""
    is_finished: bool
    """False: stopped by a signal; the same call takes it up again."""


def tune(config: RunConfig, log: RunLog, *, fork: bool = False) -> RunResult:
    """Tune a pretrained policy to its task's reward (algorithm 2 of the paper).

    Raises:
        ConfigError, ValueError, CheckpointError, OSError: one line that says what to fix.
    """
    parts = assemble(config)
    run = open_run(parts.config, log, fork=fork)
    loop = _Tuning(parts, run)
    return _run(parts, run, log, learner=loop.learner, loop=loop)


def pretrain(config: RunConfig, log: RunLog, *, fork: bool = False) -> RunResult:
    """Train a policy by maximum likelihood on annotations (algorithm 1 of the paper).

    Raises:
        As ``tune``.
    """
    parts = assemble(config)
    run = open_run(parts.config, log, fork=fork)
    loop = _Pretraining(parts)
    return _run(parts, run, log, learner=loop.learner, loop=loop)


class _Pretraining:
    """One step: annotated examples in, weights changed."""

    def __init__(self, parts: Parts) -> None:
        config = parts.config
        self.learner = Learner(parts.policy, config.learner, task=parts.task)
        self._parts = parts
        self._order = DataOrder(len(parts.train), config.seed, config.data.views)

    def restore(self, versions: Mapping[int, Mapping[str, PackedTensor]]) -> None:
        """Nothing is in flight between steps."""

    def behaviour(self) -> dict[int, Mapping[str, PackedTensor]]:
        return {}

    def step(self) -> tuple[StepReport, dict[str, float]]:
        started = time.perf_counter()
        parts, ordinals = self._parts, self.learner.ledger.next_ordinals
        entries = [self._order.entry(ordinal) for ordinal in ordinals]
        input_size = parts.policy.input_size
        tokens_GT = np.stack(
            [
                parts.task.target_tokens(
                    parts.train.example(entry.example),
                    entry.view,
                    input_size=input_size,
                    rng=np.random.default_rng([parts.config.seed, _TARGET_STREAM, ordinal]),
                )
                for ordinal, entry in zip(ordinals, entries, strict=True)
            ]
        )
        images_GHWC = images_in_view(
            parts.train, [(e.example, e.view) for e in entries], input_size=input_size
        )
        loaded = time.perf_counter()
        report = self.learner.maximum_likelihood(
            torch.from_numpy(tokens_GT).long(), torch.from_numpy(images_GHWC)
        )
        return report, {
            "seconds_load": loaded - started,
            "seconds_learn": time.perf_counter() - loaded,
        }


class _Tuning:
    """One step: draw and score until ``depth + 1`` batches are in flight, consume the oldest."""

    def __init__(self, parts: Parts, run: RunDirectory) -> None:
        config = parts.config
        order = DataOrder(len(parts.train), config.seed, config.data.views)
        settings = config.sampler
        self.learner = Learner(
            parts.policy,
            config.learner,
            task=parts.task,
            weighs_importance=config.weighs_importance,
        )
        self._parts = parts
        self._term = run.term
        self._dtype = getattr(torch, settings.dtype)
        self._store = MemoryWeightStore()
        self._in_flight: deque[list[ScoredGroup]] = deque()
        self._sampler = Sampler(
            sampler_policy(parts.policy, settings.dtype),
            task=parts.task,
            dataset=parts.train,
            order=order,
            seed=config.seed,
            num_samples=settings.num_samples,
            decoding=Decoding(
                temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
            ),
        )
        self._publish()

    def restore(self, versions: Mapping[int, Mapping[str, PackedTensor]]) -> None:
        """Publish what a checkpoint held: what was in flight is drawn again by the same weights."""
        for version, weights in versions.items():
            self._store.publish(Published(self._term, version), weights)
        self._publish()

    def behaviour(self) -> dict[int, Mapping[str, PackedTensor]]:
        """Weights of the versions before this one that batches still to come are drawn with."""
        now = self.learner.policy_version
        first = max(0, now - self._parts.config.depth)
        return {v: self._store.fetch(Published(self._term, v)) for v in range(first, now)}

    def step(self) -> tuple[StepReport, dict[str, float]]:
        config = self._parts.config
        seconds = {"seconds_sample": 0.0, "seconds_score": 0.0}
        version = self.learner.policy_version
        last = min(version + config.depth, config.learner.num_steps - 1)
        while version + len(self._in_flight) <= last:
            batch = version + len(self._in_flight)
            self._in_flight.append(self._draw(batch, seconds))
        started = time.perf_counter()
        scored = self._in_flight.popleft()
        images_GHWC = images_in_view(
            self._parts.train,
            [(s.group.example, s.group.view) for s in scored],
            input_size=self._parts.policy.input_size,
        )
        report = self.learner.reinforce(scored, torch.from_numpy(images_GHWC))
        seconds["seconds_learn"] = time.perf_counter() - started
        self._publish()
        staleness = version - min(s.group.published.policy_version for s in scored)
        return report, {**seconds, **_reward_metrics(scored), "staleness": float(staleness)}

    def _draw(self, batch: int, seconds: dict[str, float]) -> list[ScoredGroup]:
        config = self._parts.config
        published = Published(self._term, max(0, batch - config.depth))
        if self._sampler.loaded != published:
            self._sampler.load(self._store.fetch(published), published)
        size, micro_batch = config.learner.batch_size, config.sampler.micro_batch
        scored: list[ScoredGroup] = []
        for start in range(batch * size, (batch + 1) * size, micro_batch):
            began = time.perf_counter()
            groups = self._sampler.sample(range(start, start + micro_batch))
            drawn = time.perf_counter()
            scored += [
                score_group(
                    group,
                    task=self._parts.task,
                    dataset=self._parts.train,
                    input_size=self._parts.policy.input_size,
                )
                for group in groups
            ]
            seconds["seconds_sample"] += drawn - began
            seconds["seconds_score"] += time.perf_counter() - drawn
        return scored

    def _publish(self) -> None:
        version = self.learner.policy_version
        weights = pack_weights(self._parts.policy, dtype=self._dtype)
        self._store.publish(Published(self._term, version), weights)
        self._store.retire(before_version=version - self._parts.config.depth)


def _reward_metrics(scored: Sequence[ScoredGroup]) -> dict[str, float]:
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
        **components,
    }


@dataclass(slots=True)
class _History:
    """Holdout metrics so far, and which policy was best."""

    metric: str | None
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None
    best_value: float = -float("inf")

    def add(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Record an evaluation; whether it is the best so far."""
        self.evaluations.append({"step": step, **metrics})
        value = metrics[self.metric or next(iter(metrics))]
        if value <= self.best_value:
            return False
        self.best_step, self.best_value = step, value
        return True

    @property
    def best(self) -> dict[str, float]:
        return next((e for e in self.evaluations if e["step"] == self.best_step), {})


def _run(
    parts: Parts,
    run: RunDirectory,
    log: RunLog,
    *,
    learner: Learner,
    loop: _Pretraining | _Tuning,
) -> RunResult:
    config = parts.config
    num_steps, every = config.learner.num_steps, config.evaluation.every_steps
    history = _History(metric=config.evaluation.metric)
    if run.checkpoint is not None:
        _restore(run, learner, loop, history)
        log.message(f"continuing {run.path} at step {learner.policy_version} of {num_steps}")
    saved = learner.policy_version if run.checkpoint else None
    with stop_on_signal() as stop:
        if run.checkpoint is None:
            _evaluate(parts, run, log, history, step=0)
        while learner.policy_version < num_steps and not stop:
            started = time.perf_counter()
            report, measured = loop.step()
            step = learner.policy_version
            seconds = time.perf_counter() - started
            if step % config.operations.log_every == 0 or report.is_skipped:
                log.step(_record(config, step, report, measured, seconds))
            is_last = step == num_steps
            if is_last or (every and step % every == 0):
                _evaluate(parts, run, log, history, step=step)
            if is_last or stop or step % config.operations.checkpoint_every == 0:
                _save(parts, run, learner, loop, history)
                saved = step
        if saved != learner.policy_version:
            _save(parts, run, learner, loop, history)
    return _finish(parts, run, learner, history, stop=stop)


def _record(
    config: RunConfig,
    step: int,
    report: StepReport,
    measured: Mapping[str, float],
    seconds: float,
) -> dict[str, float]:
    accounted = sum(value for name, value in measured.items() if name.startswith("seconds_"))
    return {
        "step": step,
        **report.metrics,
        **measured,
        "is_skipped": float(report.is_skipped),
        "seconds": seconds,
        "seconds_other": max(0.0, seconds - accounted),
        "images_per_second": config.learner.batch_size / seconds,
        "samples_per_second": measured.get("num_samples", config.learner.batch_size) / seconds,
    }


def _evaluate(
    parts: Parts, run: RunDirectory, log: RunLog, history: _History, *, step: int
) -> None:
    if parts.holdout is None:
        return
    settings = parts.config.evaluation
    wanted = len(parts.holdout) if settings.num_examples is None else settings.num_examples
    evaluation = evaluate_policy(
        parts.policy,
        parts.task,
        parts.holdout,
        indices=range(min(wanted, len(parts.holdout))),
        score_rules=[settings.score_rule] if settings.score_rule else None,
        decoding=GREEDY
        if settings.decoding == "greedy"
        else Decoding(temperature=settings.temperature, top_p=settings.top_p),
        seed=parts.config.seed,
    )
    log.evaluation(step, evaluation.metrics)
    if history.add(step, evaluation.metrics):
        _write_policy(parts, run.best_policy_path, step=step)


def _save(
    parts: Parts,
    run: RunDirectory,
    learner: Learner,
    loop: _Pretraining | _Tuning,
    history: _History,
) -> None:
    if run.is_superseded():
        raise RuntimeError(
            f"another process has taken over {run.path}: this one stops without writing"
        )
    optimizer, ledger = learner.state()
    behaviour: dict[str, Mapping[str, Tensor]] = {
        f"behaviour-{version:08d}": {name: unpack_tensor(p) for name, p in weights.items()}
        for version, weights in loop.behaviour().items()
    }
    state = {
        "identity_hash": parts.config.identity_hash(),
        "train_digest": parts.train.digest,
        "term": run.term,
        "ledger": ledger,
        "evaluations": history.evaluations,
        "best_step": history.best_step,
        "best_value": history.best_value,
    }
    files = {"weights": learner.weights(), "optimizer": optimizer, **behaviour}
    save_checkpoint(run.checkpoints, learner.policy_version, files, state)
    kept = parts.config.operations.keep_checkpoints
    prune(run.checkpoints, keep_last=kept)


def _restore(
    run: RunDirectory, learner: Learner, loop: _Pretraining | _Tuning, history: _History
) -> None:
    checkpoint = run.checkpoint
    assert checkpoint is not None
    state, files = checkpoint.state, checkpoint.files
    learner.restore(files["weights"], files["optimizer"], state["ledger"])
    history.evaluations = list(state["evaluations"])
    history.best_step, history.best_value = state["best_step"], state["best_value"]
    loop.restore(
        {
            int(name.removeprefix("behaviour-")): _packed(tensors)
            for name, tensors in files.items()
            if name.startswith("behaviour-")
        }
    )


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, PackedTensor]:
    return {
        name: PackedTensor(
            data_B=tensor.contiguous().flatten().view(torch.uint8).numpy(),
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
        )
        for name, tensor in tensors.items()
    }


def _finish(
    parts: Parts, run: RunDirectory, learner: Learner, history: _History, *, stop: StopFlag
) -> RunResult:
    is_finished = learner.policy_version >= parts.config.learner.num_steps
    _write_policy(parts, run.policy_path, step=learner.policy_version)
    has_best = history.best_step is not None and run.best_policy_path.exists()
    return RunResult(
        directory=run.path,
        policy_path=run.best_policy_path if has_best else run.policy_path,
        metrics={k: v for k, v in history.best.items() if k != "step"},
        is_finished=is_finished,
    )


def _write_policy(parts: Parts, path: Path, *, step: int) -> None:
    save_policy(
        path,
        parts.policy,
        vocabulary=parts.task.describe_vocabulary(),
        provenance={
            "task": parts.config.task,
            "task_options": parts.config.task_options,
            "identity_hash": parts.config.identity_hash(),
            "mode": parts.config.mode,
            "seed": parts.config.seed,
            "step": step,
            "train_digest": parts.train.digest,
            "checkpoint_digest": parts.config.policy.checkpoint_digest,
        },
    )
