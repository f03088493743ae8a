"""Detection, checked through its tokens: boxes drawn over, moved, doubled and made up.

Axes: N boxes, T tokens of a sequence, P box slots, 6 tokens of a box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardtune.datasets.example import Dataset, Example
from rewardtune.tasks.detection.codec import TOKENS_PER_BOX, Boxes, DetectionCodec
from rewardtune.tasks.detection.target import target_boxes
from rewardtune.tasks.probe import Claim, Kind
from rewardtune.tasks.task import Task
from rewardtune.tasks.token_probe import TokenProbe, Tokens, framed

MAX_SHIFT = 0.4
"""Of a box's side: from hardly moved to an overlap of a third."""
MISSED, MISTAKEN = 0.15, 0.1
"""Shares of boxes that jittering drops, and gives another class."""


class DetectionProbe(TokenProbe):
    """Made boxes as token sequences; implements ``rewardtune.tasks.probe.Probe``."""

    kinds: Sequence[Kind] = (
        "perfect", "shuffled", "duplicated", "jittered", "random", "empty",
    )  # fmt: skip

    def __init__(self, task: Task, dataset: Dataset, *, codec: DetectionCodec) -> None:
        super().__init__(task, dataset)
        self._codec = codec

    def draw(self, kind: Kind, example: Example, rng: np.random.Generator) -> Tokens:
        if kind == "empty":
            return np.zeros(self._codec.sequence_length, dtype=np.int32)
        # Not the task's target tokens: its options may mix boxes into them that are wrong.
        boxes = target_boxes(framed(example), codec=self._codec)
        if kind == "random":
            boxes = _made_up(max(1, len(boxes)), self._codec, rng)
        elif kind == "jittered":
            boxes = _with_mistakes(boxes, self._codec, rng)
        perfect_T = self._codec.encode(boxes, rng=rng)
        if kind == "shuffled":
            return _in_another_order(perfect_T, rng)
        if kind == "duplicated":
            return _duplicated(perfect_T, num_copies=self._codec.max_boxes)
        return perfect_T

    def claims(self, example: Example, rng: np.random.Generator) -> Sequence[Claim[Tokens]]:
        jittered_T = self.draw("jittered", example, rng)
        perfect_T = self.draw("perfect", example, rng)
        return (
            Claim("box order", jittered_T, _in_another_order(jittered_T, rng)),
            Claim("duplicated box", jittered_T, _duplicated(jittered_T, num_copies=1), "not above"),
            Claim("duplicated box", perfect_T, _duplicated(perfect_T, num_copies=1), "not above"),
        )


def _in_another_order(tokens_T: Tokens, rng: np.random.Generator) -> Tokens:
    """Empty slots move too: they may stand anywhere."""
    shuffled_P6: Tokens = rng.permutation(tokens_T.reshape(-1, TOKENS_PER_BOX))
    return shuffled_P6.reshape(-1)


def _duplicated(tokens_T: Tokens, *, num_copies: int) -> Tokens:
    """The first boxes once more, as many as are asked for and have a free slot."""
    boxes_P6 = tokens_T.reshape(-1, TOKENS_PER_BOX).copy()
    is_free_P = boxes_P6[:, -1] == 0
    free, taken = np.flatnonzero(is_free_P), np.flatnonzero(~is_free_P)
    num = min(len(free), len(taken), num_copies)
    boxes_P6[free[:num]] = boxes_P6[taken[:num]]
    return boxes_P6.reshape(-1)


def _with_mistakes(boxes: Boxes, codec: DetectionCodec, rng: np.random.Generator) -> Boxes:
    boxes = boxes[rng.random(len(boxes)) >= MISSED]
    side_N4 = np.tile(boxes.yxyx_N4[:, 2:] - boxes.yxyx_N4[:, :2], (1, 2))
    shift_N4 = rng.uniform(-1, 1, (len(boxes), 4)) * rng.uniform(0, MAX_SHIFT) * side_N4
    is_mistaken_N = rng.random(len(boxes)) < MISTAKEN
    other_N = rng.integers(codec.num_classes, size=len(boxes))
    return Boxes(
        yxyx_N4=np.clip(boxes.yxyx_N4 + shift_N4, 0.0, 1.0),
        label_N=np.where(is_mistaken_N, other_N, boxes.label_N),
        confidence_N=boxes.confidence_N,
    )


def _made_up(num: int, codec: DetectionCodec, rng: np.random.Generator) -> Boxes:
    corner_N22 = np.sort(rng.random((num, 2, 2)), axis=1)
    return Boxes(
        yxyx_N4=corner_N22.reshape(num, 4),
        label_N=rng.integers(codec.num_classes, size=num),
        confidence_N=np.full(num, codec.max_confidence),
    )
