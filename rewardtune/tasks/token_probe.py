"""Any task of the protocol, checked by its tokens alone.

What tokens mean only the task knows, so these predictions are crude: a perfect sequence, one of
nothing but zeros (or a stop token), and ones with tokens replaced or in another order.

Axes: S rollouts, T tokens of a sequence, N examples, Q probed tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Dataset, Example
from rewardtune.datasets.frame import Framed, Square
from rewardtune.records import Score, View
from rewardtune.tasks.probe import Claim, Kind, Measured
from rewardtune.tasks.task import Task

FRAMING = Square(side=512)
"""What examples are looked at in: the paper's square."""
MAX_REPLACED = 0.6
"""Largest share of tokens that a jittered sequence has replaced."""

Tokens = NDArray[np.int32]


def framed(example: Example) -> Framed:
    """The whole example, as predictions of it are made."""
    return Framed.of(example, View(), FRAMING)


class TokenProbe:
    """Made token sequences of a task; implements ``rewardtune.tasks.probe.Probe``."""

    kinds: Sequence[Kind] = ("perfect", "shuffled", "jittered", "random", "empty")

    def __init__(self, task: Task, dataset: Dataset) -> None:
        self._task = task
        self._dataset = dataset

    @property
    def task(self) -> str:
        return self._task.name

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> Tokens:
        vocabulary = self._task.vocabulary
        if kind == "empty":
            stop_token = vocabulary.stop_tokens[0] if vocabulary.stop_tokens else 0
            return np.full(vocabulary.max_tokens, stop_token, dtype=np.int32)
        random_T = rng.integers(vocabulary.size, size=vocabulary.max_tokens, dtype=np.int32)
        if kind == "random":
            return random_T
        perfect_T = self._task.target_tokens(framed(example), rng=rng)
        if kind == "shuffled":
            return rng.permutation(perfect_T)
        if kind == "jittered":
            is_replaced_T = rng.random(len(perfect_T)) < rng.uniform(0, MAX_REPLACED)
            return np.where(is_replaced_T, random_T, perfect_T)
        return perfect_T

    def score(self, predictions: Sequence[Tokens], example: Example) -> Score:
        seen = framed(example)
        return self._task.score(self._task.decode(np.stack(predictions), seen), seen)

    def decoded(self, predictions: Sequence[Tokens], example: Example) -> Sequence[object]:
        return self._task.decode(np.stack(predictions), framed(example))

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[Tokens]]:
        return ()

    def measure(self, predictions: Sequence[Tokens], indices: Sequence[int]) -> Measured:
        results = [
            self._results(tokens_T, self._dataset.example(index))
            for tokens_T, index in zip(predictions, indices, strict=True)
        ]
        overall = self._task.evaluate(
            [record for records in results for record in records], self._dataset, indices=indices
        )
        each = [
            self._task.evaluate(records, self._dataset, indices=[index])
            for records, index in zip(results, indices, strict=True)
        ]
        return Measured(
            overall=overall,
            per_example_N={
                name: np.array([metrics.get(name, np.nan) for metrics in each]) for name in overall
            },
        )

    def _results(self, tokens_T: Tokens, example: Example) -> list[dict[str, Any]]:
        # As if the policy had been sure of every token.
        num_probes = len(self._task.vocabulary.probe_tokens)
        seen = framed(example)
        return self._task.predict(
            self._task.decode(tokens_T[None], seen),
            np.zeros(len(tokens_T), dtype=np.float32),
            np.zeros((len(tokens_T), num_probes), dtype=np.float32),
            seen,
            score_rule=self._task.score_rules[0],
        )
