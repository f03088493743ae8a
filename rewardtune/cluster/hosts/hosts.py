"""The services of a run as plain objects: each is built from JSON in a process of its own.

Constructors only read their settings. ``begin`` does what takes time or can fail, so that its
error reaches the driver as itself.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from learner.metrics import report_step
from learner.ranks import MeetingPoint, ShardExchange, TorchRanks
from learner.source import GroupSource, QueueSource, SharingSource
from rewardtune.cluster.hosts.exposed import Exposed, expose
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.settings import ServiceSettings, unhurried
from rewardtune.evaluation.divergence import kl_divergence
from rewardtune.policies.policy_file import load_policy
from rewardtune.records import Published
from rewardtune.run.assembly import Parts, assemble, build_sampler
from rewardtune.run.directory import open_run
from rewardtune.run.local import holdout_metrics
from rewardtune.run.state import restore_run, save_run, write_policy
from rewardtune.run.tuning import TuningLoop, step_record
from rewardtune.transport.queue.connect import connect_queue, connect_weights
from rewardtune.transport.queue.job_queue import Term
from rewardtune.transport.telemetry.metric_table import Role
from sampler.service import SamplerService

_PATIENCE_SECONDS = 1.0
"""Of a learner that waits for its batch, before it looks up to hear whether to stop."""


class LearnerHost:
    """The learner: collects, learns, publishes, writes checkpoints."""

    def __init__(self, settings: str) -> None:
        self._settings = ServiceSettings.model_validate_json(settings)

    def begin(self) -> dict[str, Any]:
        """Claim a term, find what to start from.

        Returns:
            term, pid, metrics_address, messages; checkpoint: folder to start from, or None;
            address: where other ranks meet this one, None if there are none.
        """
        messages: list[str] = []
        self._parts = assemble(self._settings.config)
        config = self._parts.config
        # Before a term is claimed, which an attempt in vain would waste.
        with unhurried():
            queue = connect_queue(
                self._settings.queue,
                run=config.run_name,
                lease_seconds=config.cluster.lease_seconds,
            )
            store = connect_weights(self._settings.weights)
        self._run = open_run(config, messages.append, fork=self._settings.fork)
        term = Term(
            number=self._run.term,
            spec=self._settings.spec.encode(),
            capacity=(config.depth + 1) * config.learner.batch_size,
        )
        self._source = QueueSource(queue, term, patience_seconds=_PATIENCE_SECONDS)
        self._store = store
        self._meeting = MeetingPoint(config.cluster.bind) if config.cluster.learners > 1 else None
        found = self._run.checkpoint
        return {
            "term": term.number,
            "pid": os.getpid(),
            "metrics_address": self._exposed.address,
            "messages": messages,
            "checkpoint": None if found is None else str(found.path),
            "address": self._meeting_address,
        }

    def join(self) -> dict[str, Any]:
        """Meet the other ranks if there are any, restore, publish what samplers need.

        Returns:
            version; candidate: a policy to measure, or None.

        Raises:
            RankLost: not all ranks came.
        """
        with unhurried():
            if self._run.checkpoint is None:
                self._loop.restore({})
            else:
                restore_run(self._run, self._loop)
            self._source.open(frontier=self._loop.learner.ledger.next_ordinals.start)
        self._saved = self.version if self._run.checkpoint else None
        self._began = time.perf_counter()
        meter = self._exposed.meter
        meter.set("term", self._run.term)
        meter.set("policy_version", self.version)
        meter.set("checkpoint_timestamp_seconds", time.time())
        return {
            "version": self.version,
            "candidate": self._candidate() if self._run.checkpoint is None else None,
        }

    @functools.cached_property
    def _loop(self) -> TuningLoop:
        # Once: ranks meet once, however often it takes to publish.
        ranks: ShardExchange | None = None
        source: GroupSource = self._source
        if self._meeting_address is not None:
            ranks = TorchRanks(
                rank=0,
                num_ranks=self._parts.config.cluster.learners,
                address=self._meeting_address,
                device=self._parts.device,
                listener=self._meeting,
            )
            source = SharingSource(source, ranks)
        return TuningLoop(
            self._parts, term=self._run.term, store=self._store, source=source, ranks=ranks
        )

    @property
    def _meeting_address(self) -> str | None:
        if self._meeting is None:
            return None
        # Where the others reach this process, they reach its metrics.
        return f"{self._exposed.address.rpartition(':')[0]}:{self._meeting.port}"

    @functools.cached_property
    def _exposed(self) -> Exposed:
        # Once, however often it begins.
        return expose(self._settings.config, Role.LEARNER)

    @functools.cached_property
    def _gpu(self) -> GpuReport:
        return GpuReport(self._exposed.meter)

    @property
    def version(self) -> int:
        return self._loop.learner.policy_version

    def step(self) -> dict[str, Any] | None:
        """Consume one batch and do what is due after it; None if it is not complete yet.

        Returns:
            version, record for the log, num_invalid of the batch, candidate.
        """
        ledger = self._loop.learner.ledger
        before = (len(ledger.invalid), len(ledger.skipped))
        outcome = self._loop.step()
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
        return {
            "version": version,
            "record": record,
            "num_invalid": num_invalid,
            "candidate": self._candidate() if is_last or (every and version % every == 0) else None,
        }

    def _report(self, record: Mapping[str, float], *, num_invalid: int, num_skipped: int) -> None:
        config = self._parts.config
        size, num_samples = config.learner.batch_size, config.sampler.num_samples
        num_trained = config.learner.num_trained(num_samples)
        report_step(
            self._exposed.meter,
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
            self._exposed.meter.set("checkpoint_timestamp_seconds", time.time())

    def finish(self) -> None:
        """Checkpoint and policy; nothing comes after."""
        self.save()
        write_policy(self._parts, self._run.policy_path, step=self.version)

    def _candidate(self) -> str | None:
        """The policy as a file for the evaluator: master weights, whatever samplers compute in."""
        if self._parts.holdout is None:
            return None
        path = self._run.candidate_path(self.version)
        path.parent.mkdir(exist_ok=True)
        write_policy(self._parts, path, step=self.version)
        return str(path)


class SamplerHost:
    """A sampler: draws micro-batches into the queue."""

    def __init__(self, settings: str) -> None:
        self._settings = ServiceSettings.model_validate_json(settings)

    def begin(self) -> dict[str, Any]:
        parts = assemble(self._settings.config)
        with unhurried():
            queue = connect_queue(
                self._settings.queue,
                run=parts.config.run_name,
                lease_seconds=parts.config.cluster.lease_seconds,
            )
            store = connect_weights(self._settings.weights)
        exposed = expose(parts.config, Role.SAMPLER)
        self._gpu = GpuReport(exposed.meter)
        self._service = SamplerService(
            build_sampler(parts), queue=queue, store=store, meter=exposed.meter
        )
        return {"pid": os.getpid(), "metrics_address": exposed.address}

    def draw(self, term: int, policy_version: int, first: int, num_groups: int) -> dict[str, float]:
        report = self._service.draw(
            Published(term, policy_version), range(first, first + num_groups)
        )
        self._gpu.report()
        return asdict(report)


class EvaluatorHost:
    """Measures policies on the holdout set, beside training."""

    def __init__(self, settings: str) -> None:
        self._settings = ServiceSettings.model_validate_json(settings)

    def begin(self) -> dict[str, Any]:
        # It asks Ray for no GPU, and on a node of its own may have none.
        self._parts: Parts = assemble(self._settings.config, on_cpu=not torch.cuda.is_available())
        self._exposed = expose(self._parts.config, Role.EVALUATOR)
        self._gpu = GpuReport(self._exposed.meter)
        # The policy that tuning starts from, which the config names.
        self._initial = self._parts.policy
        return {"pid": os.getpid(), "metrics_address": self._exposed.address}

    def evaluate(self, path: str) -> dict[str, float]:
        """Holdout metrics of a policy file."""
        policy = load_policy(Path(path)).policy.to(self._parts.device)
        metrics = holdout_metrics(replace(self._parts, policy=policy))
        if metrics is None or self._parts.holdout is None:
            raise ValueError("nothing to evaluate on: set data.holdout")
        divergence = kl_divergence(
            policy, self._initial, self._parts.holdout, task=self._parts.task
        )
        self._exposed.meter.set("kl_to_initial", divergence)
        self._gpu.report()
        return dict(metrics)
