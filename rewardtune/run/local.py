"""The whole loop in one process: read this first.

Draw a batch of groups, score them, learn from them, publish the new weights. On a cluster the
same loop stands in ``rewardtune.run.tuning``, and what is called here goes through queues.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from learner.not_finite import NotFinite
from learner.source import Collected
from reward_workers.scoring.reward import RewardFailed
from reward_workers.scoring.score import BadScore, score_group
from rewardtune.config.run_config import RunConfig
from rewardtune.evaluation.history import History
from rewardtune.records import Group, Published, Score, ScoredGroup
from rewardtune.run.assembly import Parts, assemble, build_reward, build_sampler
from rewardtune.run.directory import RunDirectory, open_run
from rewardtune.run.holdout import holdout_metrics
from rewardtune.run.log import RunLog
from rewardtune.run.pretraining import PretrainingLoop
from rewardtune.run.result import RunResult, finished
from rewardtune.run.run_state import RunStateFile, run_state
from rewardtune.run.state import last_good, restore_run, save_run, write_policy
from rewardtune.run.stopping import stop_on_signal
from rewardtune.run.tuning import TuningLoop, step_record
from rewardtune.run.unscored import TOO_MANY_UNSCORED, UnscoredGroups
from rewardtune.transport.weights.weight_store import MemoryWeightStore, WeightStore


def tune(config: RunConfig, log: RunLog, *, fork: bool = False) -> RunResult:
    """Tune a pretrained policy to its task's reward (algorithm 2 of the paper).

    Everything in this process; ``rewardtune.cluster.launch.tune_on_ray`` comes to the same weights
    with a process for each part. A run that was interrupted goes on where it stopped.

    Args:
        log: hears of steps, evaluations and messages: ``open_run_log(config, num_steps)``.
        fork: go on from the run's checkpoint although the config's identity has changed.

    Raises:
        ConfigError, ValueError, CheckpointError, OSError: one line that says what to fix.
        NotFinite: a step left the numbers; says which, and where the last good checkpoint is.
    """
    with run_state(config.operations.directory, num_steps=config.learner.num_steps) as told:
        parts = assemble(config)
        run = open_run(parts.config, log.message, fork=fork)
        store = MemoryWeightStore()
        source = LocalSource(parts, store=store, term=run.term, tell=log.message)
        loop = TuningLoop(parts, term=run.term, store=store, source=source)
        return _run(parts, run, log, loop, told)


def pretrain(config: RunConfig, log: RunLog, *, fork: bool = False) -> RunResult:
    """Train a policy by maximum likelihood on annotations (algorithm 1 of the paper).

    Args:
        log, fork: as for ``tune``.

    Raises:
        As ``tune``.
    """
    with run_state(config.operations.directory, num_steps=config.learner.num_steps) as told:
        parts = assemble(config)
        run = open_run(parts.config, log.message, fork=fork)
        return _run(parts, run, log, PretrainingLoop(parts, tell=log.message), told)


class LocalSource:
    """Draws and scores a batch when the learner asks for it.

    With the weights that the depth says, which the store keeps: that a cluster draws the batch
    earlier, while the learner is busy, makes no difference to what is drawn.
    """

    def __init__(
        self, parts: Parts, *, store: WeightStore, term: int, tell: Callable[[str], None]
    ) -> None:
        """
        Args:
            tell: hears of groups that the run's reward could not score.
        """
        self._parts = parts
        self._reward = build_reward(parts)
        self._tell = tell
        self._unscored = UnscoredGroups(parts.config.learner.batch_size)
        self._store = store
        self._term = term
        self._sampler = build_sampler(parts)

    def collect(self, ordinals: range) -> Collected:
        config = self._parts.config
        batch = ordinals.start // config.learner.batch_size
        published = Published(self._term, config.drawn_with(batch))
        if self._sampler.loaded != published:
            self._sampler.load(self._store.fetch(published), published)
        scored: list[ScoredGroup] = []
        sample_seconds = score_seconds = 0.0
        for start in range(ordinals.start, ordinals.stop, config.sampler.micro_batch):
            began = time.perf_counter()
            groups = self._sampler.sample(range(start, start + config.sampler.micro_batch)).groups
            drawn = time.perf_counter()
            scored += map(self._score, groups)
            sample_seconds += drawn - began
            score_seconds += time.perf_counter() - drawn
        num_invalid = sum(not each.score.is_valid for each in scored)
        if self._unscored.are_too_many(num_invalid):
            raise RewardFailed(f"{TOO_MANY_UNSCORED}; the last: {self._last_failure}")
        return Collected(scored, {"seconds_sample": sample_seconds, "seconds_score": score_seconds})

    def _score(self, group: Group) -> ScoredGroup:
        try:
            return score_group(
                group,
                task=self._parts.task,
                dataset=self._parts.train,
                framing=self._parts.policy.framing,
                reward=self._reward,
            )
        except (RewardFailed, BadScore) as error:
            # On a cluster it would be tried once more; here the same would happen again.
            self._last_failure = str(error)
            self._tell(f"group {group.ordinal} trains nothing: {error}")
            unknown_S = np.full(len(group.tokens_ST), np.nan)
            return ScoredGroup(group, Score(reward_S=unknown_S, is_valid=False))

    def consumed(self, *, before: int) -> None:
        """Nothing is kept."""


def _run(
    parts: Parts,
    run: RunDirectory,
    log: RunLog,
    loop: PretrainingLoop | TuningLoop,
    told: RunStateFile,
) -> RunResult:
    config, learner = parts.config, loop.learner
    num_steps, every = config.learner.num_steps, config.evaluation.every_steps
    history = History(run.path, metric=config.evaluation.metric)
    if run.checkpoint is None:
        loop.restore({})
    else:
        restore_run(run, loop)
        log.message(f"continuing {run.path} at step {learner.policy_version} of {num_steps}")
    saved = learner.policy_version if run.checkpoint else None
    told.tell("running", step=learner.policy_version)
    with stop_on_signal() as stop:
        if run.checkpoint is None:
            _evaluate(parts, run, log, history, step=0)
        while learner.policy_version < num_steps and not stop:
            started = time.perf_counter()
            try:
                outcome = loop.step()
            except NotFinite as error:
                raise last_good(parts, run, loop, error) from error
            if outcome is None:
                continue
            report, measured = outcome
            step = learner.policy_version
            told.tell("draining" if stop else "running", step=step)
            seconds = time.perf_counter() - started
            if step % config.operations.log_every == 0 or report.is_skipped:
                size = config.learner.batch_size
                log.step(step_record(step, report, measured, seconds=seconds, batch_size=size))
            is_last = step == num_steps
            if is_last or (every and step % every == 0):
                _evaluate(parts, run, log, history, step=step)
            if is_last or stop or step % config.operations.checkpoint_every == 0:
                save_run(parts, run, loop)
                saved = step
        if saved != learner.policy_version:
            save_run(parts, run, loop)
    write_policy(parts, run.policy_path, step=learner.policy_version)
    told.ended(step=learner.policy_version)
    return finished(parts.config, run.path, history, step=learner.policy_version)


def _evaluate(parts: Parts, run: RunDirectory, log: RunLog, history: History, *, step: int) -> None:
    metrics = holdout_metrics(parts)
    if metrics is None:
        return
    log.evaluation(step, metrics)
    if history.add(step, metrics):
        write_policy(parts, run.best_policy_path, step=step)
