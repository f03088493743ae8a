"""What the learner's host does once its term has begun: steps, and what is due after each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from learner.metrics import report_step
from learner.not_finite import NotFinite
from learner.source import QueueSource
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.replies import Joined, Stepped
from rewardtune.run.assembly import Parts
from rewardtune.run.directory import RunDirectory
from rewardtune.run.state import last_good, restore_run, save_run, write_policy
from rewardtune.run.tuning import TuningLoop, step_record
from rewardtune.transport.telemetry.meter import Meter


class Learning:
    """One term of the learner: its loop, its checkpoints, its figures."""

    def __init__(
        self,
        loop: TuningLoop,
        *,
        parts: Parts,
        run: RunDirectory,
        source: QueueSource,
        meter: Meter,
    ) -> None:
        """
        Args:
            run: in which the term was claimed.
            source: of the loop, before it is shared with other ranks.
        """
        self._loop = loop
        self._parts = parts
        self._run = run
        self._source = source
        self._meter = meter
        self._gpu = GpuReport(meter)
        self._saved: int | None = None
        """The version of the newest checkpoint."""
        self._began = time.perf_counter()

    @property
    def version(self) -> int:
        return self._loop.learner.policy_version

    def open(self) -> Joined:
        """Restore, publish what samplers need, open the term in the queue.

        Raises:
            QueueUnavailable, WeightsUnavailable: not there yet; may be called again.
        """
        is_new = self._run.checkpoint is None
        if is_new:
            self._loop.restore({})
        else:
            restore_run(self._run, self._loop)
        self._source.open(frontier=self._loop.learner.ledger.next_ordinals.start)
        self._saved = None if is_new else self.version
        self._began = time.perf_counter()
        self._meter.set("term", self._run.term)
        self._meter.set("policy_version", self.version)
        self._meter.set("checkpoint_timestamp_seconds", time.time())
        return Joined(self.version, candidate=self._candidate() if is_new else None)

    def step(self) -> Stepped | None:
        """Consume one batch and do what is due after it; None if it is not complete yet.

        Raises:
            RankLost: another rank is gone.
            NotFinite: this batch left the numbers; the checkpoint before it is written.
        """
        ledger = self._loop.learner.ledger
        before = (len(ledger.invalid), len(ledger.skipped))
        try:
            outcome = self._loop.step()
        except NotFinite as error:
            raise last_good(self._parts, self._run, self._loop, error) from error
        self._gpu.report()
        if outcome is None:
            return None
        report, measured = outcome
        config, version = self._parts.config, self.version
        every = config.evaluation.every_steps
        is_last = version == config.learner.num_steps
        # Before its line in the log, so that the time it takes stands there.
        writing = time.perf_counter()
        if is_last or version % config.operations.checkpoint_every == 0:
            self.save()
        measured["seconds_checkpoint"] = time.perf_counter() - writing
        began, self._began = self._began, time.perf_counter()
        record = step_record(
            version,
            report,
            measured,
            seconds=self._began - began,
            batch_size=config.learner.batch_size,
        )
        num_invalid = len(ledger.invalid) - before[0]
        num_skipped = len(ledger.skipped) - before[1]
        self._report(record, num_invalid=num_invalid, num_skipped=num_skipped)
        is_due = is_last or (every and version % every == 0)
        return Stepped(
            version,
            record=record,
            num_invalid=num_invalid,
            messages=self._source.take_messages(),
            candidate=self._candidate() if is_due else None,
        )

    def _report(self, record: Mapping[str, float], *, num_invalid: int, num_skipped: int) -> None:
        config = self._parts.config
        size, num_samples = config.learner.batch_size, config.sampler.num_samples
        num_trained = config.learner.num_trained(num_samples)
        report_step(
            self._meter,
            record,
            num_trained=size - num_invalid - num_skipped,
            num_invalid=num_invalid,
            num_skipped=num_skipped,
            rollouts_trained=size * num_trained,
            rollouts_compared=size * (num_samples - num_trained),
        )

    def save(self) -> None:
        """Write a checkpoint unless this version has one."""
        if self._saved != self.version:
            save_run(self._parts, self._run, self._loop)
            self._saved = self.version
            self._meter.set("checkpoint_timestamp_seconds", time.time())

    def finish(self) -> None:
        """Checkpoint and policy; nothing comes after."""
        self.save()
        write_policy(self._parts, self._run.policy_path, step=self.version)

    def _candidate(self) -> Path | None:
        """The policy as a file for the evaluator: master weights, whatever samplers compute in."""
        if self._parts.holdout is None:
            return None
        path = self._run.candidate_path(self.version)
        path.parent.mkdir(exist_ok=True)
        write_policy(self._parts, path, step=self.version)
        return path
