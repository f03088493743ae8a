"""Maximum likelihood on annotations, step by step.

Axes: G examples, T tokens, H height, W width, C colours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from learner.learner import Learner, StepReport
from rewardtune.datasets.frame import Framed
from rewardtune.records import PackedWeights
from rewardtune.run.assembly import Parts, data_order
from rewardtune.tasks.batch import images_in_view
from rewardtune.tasks.task import CuttingTask

# Added to the run's seed, so that target orders do not follow the draws of the data order.
_TARGET_STREAM = 0x7461726765740000


class PretrainingLoop:
    """One step: annotated examples in, weights changed."""

    def __init__(self, parts: Parts, *, tell: Callable[[str], None]) -> None:
        """
        Args:
            tell: hears of the first annotations that are cut.
        """
        config = parts.config
        self.learner = Learner(parts.policy, config.learner, task=parts.task)
        self._parts = parts
        self._order = data_order(parts)
        self._tell = tell
        self._num_seen = self._num_cut = 0
        self._has_told = False

    def restore(self, versions: Mapping[int, PackedWeights]) -> None:
        """Nothing is in flight between steps."""

    def behaviour(self) -> dict[int, PackedWeights]:
        return {}

    def step(self) -> tuple[StepReport, dict[str, float]]:
        started = time.perf_counter()
        parts, ordinals = self._parts, self.learner.ledger.next_ordinals
        entries = [self._order.entry(ordinal) for ordinal in ordinals]
        framing = parts.policy.framing
        framed = [Framed.of(parts.train.example(e.example), e.view, framing) for e in entries]
        tokens_GT = np.stack(
            [
                parts.task.target_tokens(each, rng=self._rng(ordinal))
                for ordinal, each in zip(ordinals, framed, strict=True)
            ]
        )
        cut = self._cut(ordinals, framed)
        images_GHWC = images_in_view(
            parts.train,
            [(e.example, e.view) for e in entries],
            task=parts.task,
            framing=framing,
        )
        loaded = time.perf_counter()
        report = self.learner.maximum_likelihood(
            torch.from_numpy(tokens_GT).long(), torch.from_numpy(images_GHWC)
        )
        return report, {
            **cut,
            "seconds_load": loaded - started,
            "seconds_learn": time.perf_counter() - loaded,
        }

    def _rng(self, ordinal: int) -> np.random.Generator:
        """Draws what of an example is asked for, such as which of its captions."""
        return np.random.default_rng([self._parts.config.seed, _TARGET_STREAM, ordinal])

    def _cut(self, ordinals: Sequence[int], framed: Sequence[Framed]) -> dict[str, float]:
        """Share of the annotations since the start of this process that were too long."""
        task = self._parts.task
        if not isinstance(task, CuttingTask):
            return {}
        self._num_seen += len(framed)
        self._num_cut += sum(
            task.is_cut(each, rng=self._rng(ordinal))
            for ordinal, each in zip(ordinals, framed, strict=True)
        )
        if self._num_cut and not self._has_told:
            self._has_told = True
            self._tell(
                f"{self._num_cut} of the first {self._num_seen} annotations are longer than a "
                f"sequence of {task.vocabulary.max_tokens} tokens and were cut: the log's "
                "cut_ratio counts them all"
            )
        return {"cut_ratio": self._num_cut / self._num_seen}
