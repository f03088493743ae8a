"""The host of the evaluator."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rewardtune.cluster.hosts.exposed import expose
from rewardtune.cluster.hosts.gpu_metrics import GpuReport
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.settings import HostSettings
from rewardtune.evaluation.divergence import kl_divergence
from rewardtune.policies.policy_file import load_policy
from rewardtune.run.assembly import Parts, assemble_service
from rewardtune.run.holdout import holdout_metrics
from rewardtune.transport.telemetry.meter import Meter
from rewardtune.transport.telemetry.metric_table import Role


@dataclass(frozen=True, slots=True)
class _Evaluating:
    parts: Parts
    """Their policy is the one that the config names, which tuning starts from."""
    meter: Meter
    gpu: GpuReport


class EvaluatorHost:
    """Measures policies on the holdout set, beside training."""

    def __init__(self, settings: str) -> None:
        self._settings = HostSettings.model_validate_json(settings)
        self._evaluating: _Evaluating | None = None

    def begin(self) -> Process:
        # It asks Ray for no GPU, and on a node of its own may have none.
        parts = assemble_service(self._settings.config, on_cpu=not torch.cuda.is_available())
        exposed = expose(parts.config, Role.EVALUATOR)
        self._evaluating = _Evaluating(parts, exposed.meter, GpuReport(exposed.meter))
        return Process(os.getpid(), exposed.address)

    def evaluate(self, path: Path) -> Mapping[str, float]:
        """Holdout metrics of a policy file.

        Raises:
            ValueError: the run has no holdout set.
        """
        assert self._evaluating is not None, "an evaluator begins before it evaluates"
        parts = self._evaluating.parts
        policy = load_policy(path).policy.to(parts.device)
        metrics = holdout_metrics(replace(parts, policy=policy))
        if metrics is None or parts.holdout is None:
            raise ValueError("nothing to evaluate on: set data.holdout")
        divergence = kl_divergence(policy, parts.policy, parts.holdout, task=parts.task)
        self._evaluating.meter.set("kl_to_initial", divergence)
        self._evaluating.gpu.report()
        return dict(metrics)
