"""Made objects, for ``rewardtune reward check``: moved, doubled, in another order, made up.

Axes: N objects, K points of each, T tokens of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keypoints.codec import END, KeypointCodec
from keypoints.points import POINTS
from rewardtune.datasets.example import Dataset, Example
from rewardtune.tasks.probe import Claim, Kind
from rewardtune.tasks.task import Task
from rewardtune.tasks.token_probe import TokenProbe, Tokens

MAX_SHIFT = 0.1
"""Of the input's side, by which jittering moves points."""


class KeypointProbe(TokenProbe):
    """``TokenProbe`` scores, decodes and measures; what is left is to make the predictions."""

    kinds: Sequence[Kind] = (
        "perfect", "shuffled", "duplicated", "jittered", "random", "empty",
    )  # fmt: skip

    def __init__(self, task: Task, dataset: Dataset, *, codec: KeypointCodec) -> None:
        super().__init__(task, dataset)
        self._codec = codec

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> Tokens:
        perfect_T = super().draw("perfect", example, rng)
        found = list(self._codec.decode(perfect_T))
        category_N = np.array([each.category for each in found], dtype=np.int64)
        yx_NK2 = np.array([each.yx_K2 for each in found]).reshape(-1, len(POINTS), 2)
        if kind == "empty":
            return np.full_like(perfect_T, END)
        if kind == "shuffled":
            return self._in_another_order(perfect_T, rng)
        if kind == "duplicated":
            return self._doubled(perfect_T)
        if kind == "jittered":
            shift_NK2 = rng.uniform(-1, 1, yx_NK2.shape) * rng.uniform(0, MAX_SHIFT)
            return self._codec.encode(category_N, np.clip(yx_NK2 + shift_NK2, 0, 1))
        if kind == "random":
            category_N = rng.integers(self._codec.num_classes, size=len(found))
            return self._codec.encode(category_N, rng.random(yx_NK2.shape))
        return perfect_T

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[Tokens]]:
        """Order means nothing, and an object said twice never pays."""
        jittered_T = self.draw("jittered", example, rng)
        return (
            Claim("object order", jittered_T, self._in_another_order(jittered_T, rng)),
            Claim("doubled object", jittered_T, self._doubled(jittered_T), "not above"),
        )

    def _in_another_order(self, tokens_T: Tokens, rng: np.random.Generator) -> Tokens:
        objects = self._objects(tokens_T)
        return self._sequence([objects[n] for n in rng.permutation(len(objects))])

    def _doubled(self, tokens_T: Tokens) -> Tokens:
        """Every object once more, as far as there is room."""
        return self._sequence(self._objects(tokens_T) * 2)

    def _objects(self, tokens_T: Tokens) -> list[Tokens]:
        length = self._codec.tokens_per_object
        return [tokens_T[f.start : f.start + length] for f in self._codec.decode(tokens_T)]

    def _sequence(self, objects: Sequence[Tokens]) -> Tokens:
        tokens_T = np.full(self._codec.sequence_length, END, dtype=np.int32)
        for n, object_tokens in enumerate(objects[: self._codec.max_objects]):
            start = n * self._codec.tokens_per_object
            tokens_T[start : start + self._codec.tokens_per_object] = object_tokens
        return tokens_T
