"""Which probe checks the reward of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score
from rewardtune.tasks.probe import Claim, Kind, Measured, Probe, ProbedTask
from rewardtune.tasks.task import load_task, task_class
from rewardtune.tasks.token_probe import TokenProbe

P = TypeVar("P")


def probe_for(
    task: str, dataset: Dataset, *, options: Mapping[str, Any], custom: str | None = None
) -> Probe[Any]:
    """The probe of a task by name.

    A task that makes predictions of its own kind is checked by them, any other by its tokens.

    Args:
        task: a folder of ``rewardtune/tasks``, or a module of the user's that ``load_task`` finds.
        options: of the reward, as the task's ``probe`` takes them; else all that the task can be
            told.
        custom: "module:function" of (predictions, example), in place of the task's reward; see
            ``reward_workers.scoring.reward``.

    Raises:
        ValueError: no such task or function, or options it does not know.
    """
    probed = task_class(task)
    probe: Probe[Any] = (
        probed.probe(options, dataset)
        if isinstance(probed, ProbedTask)
        else TokenProbe(load_task(task, options, categories=dataset.categories), dataset)
    )
    return probe if custom is None else _Custom(probe, custom)


class _Custom:
    """Another probe's predictions under a reward of the user's; implements ``Probe``."""

    def __init__(self, probe: Probe[P], use: str) -> None:
        from reward_workers.scoring.reward import named_by

        named = named_by(use)
        self._probe: Probe[Any] = probe
        self._function = named() if isinstance(named, type) else named
        self.task = f"{probe.task} by {use}"
        self.kinds: Sequence[Kind] = probe.kinds

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> Any:
        return self._probe.draw(kind, example, rng)

    def decoded(self, predictions: Sequence[Any], example: Example) -> Sequence[Any]:
        return self._probe.decoded(predictions, example)

    def score(self, predictions: Sequence[Any], example: Example) -> Score:
        values = self._function(self._probe.decoded(predictions, example), example)
        return Score(reward_S=np.asarray(values, dtype=np.float64))

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[Any]]:
        return self._probe.claims(example, rng)

    def measure(self, predictions: Sequence[Any], indices: Sequence[int]) -> Measured:
        return self._probe.measure(predictions, indices)
