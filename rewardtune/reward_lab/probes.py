"""Which probe checks the reward of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rewardtune.datasets.example import Dataset, Example
from rewardtune.records import Score
from rewardtune.reward_lab.probe import Claim, Kind, Measured, Probe

P = TypeVar("P")


def probe_for(
    task: str, dataset: Dataset, *, options: Mapping[str, Any], custom: str | None = None
) -> Probe[Any]:
    """The probe of a task by name.

    Rewards of maps, captions and pictures are checked as such; any other task by its tokens.

    Args:
        task: detection, panoptic, captioning, colorization, or a module of the user's that
            ``load_task`` finds.
        options: of the reward; of detection and a user's task, all that the task can be told.
        custom: "module:function" of (predictions, example), in place of the task's reward; see
            ``reward_workers.scoring.reward``.

    Raises:
        ValueError: no such task or function, or options it does not know.
    """
    probe = _probe(task, dataset, options)
    return probe if custom is None else _Custom(probe, custom)


def _probe(task: str, dataset: Dataset, options: Mapping[str, Any]) -> Probe[Any]:
    # Each with what it needs: panoptic maps need no tokenizer, captions no colour table.
    if task == "panoptic":
        from rewardtune.reward_lab.panoptic import PanopticProbe

        return PanopticProbe(options, dataset)
    if task == "captioning":
        from rewardtune.reward_lab.captioning import CaptioningProbe

        return CaptioningProbe(options, dataset)
    if task == "colorization":
        from rewardtune.reward_lab.colorization import ColorizationProbe

        return ColorizationProbe(options, dataset)
    from rewardtune.reward_lab.detection import DetectionProbe
    from rewardtune.reward_lab.tokens import TokenProbe
    from rewardtune.tasks.detection.task import DetectionTask
    from rewardtune.tasks.task import load_task

    loaded = load_task(task, options, categories=dataset.categories)
    if isinstance(loaded, DetectionTask):
        return DetectionProbe(loaded, dataset)
    return TokenProbe(loaded, dataset)


class _Custom:
    """Another probe's predictions under a reward of the user's; implements ``probe.Probe``."""

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
