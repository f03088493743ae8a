"""Holdout metrics in the course of a run, and which policy was best by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from rewardtune.json_file import write_json

HISTORY_NAME = "evaluations.json"


class History:
    """The evaluations of one run, by step; kept in the run's directory as they come."""

    def __init__(self, directory: Path, *, metric: str | None) -> None:
        """Take up what an earlier start has measured.

        Args:
            metric: what best is judged by; None: the first of the metrics.
        """
        self._path = directory / HISTORY_NAME
        self._metric = metric
        self._by_step: dict[int, dict[str, float]] = {}
        if self._path.exists():
            self._by_step = {e["step"]: e for e in json.loads(self._path.read_text())}

    def add(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Record an evaluation; whether it is the best so far.

        A step measured again after a restart gives the same figures; it is best again if it was.

        Raises:
            ValueError: they hold no such metric; nothing is recorded.
        """
        others = [self._value(e) for s, e in self._by_step.items() if s < step]
        value = self._value({"step": step, **metrics})
        self._by_step[step] = {"step": step, **metrics}
        write_json(self._path, [self._by_step[s] for s in sorted(self._by_step)])
        return all(value > other for other in others)

    @property
    def evaluations(self) -> list[dict[str, float]]:
        return [self._by_step[step] for step in sorted(self._by_step)]

    @property
    def best(self) -> dict[str, float]:
        """The earliest of the best; empty if nothing was measured."""
        return max(self.evaluations, key=self._value, default={})

    def _value(self, evaluation: Mapping[str, float]) -> float:
        if self._metric is not None:
            if self._metric not in evaluation:
                raise ValueError(
                    f"evaluation.metric = '{self._metric}' is none of the task's metrics: choose "
                    f"from {', '.join(name for name in evaluation if name != 'step')}"
                )
            return evaluation[self._metric]
        return next(value for name, value in evaluation.items() if name != "step")
