"""Boxes as tokens and tokens as boxes, in the layout of the published detection reward.

A box is six tokens: y0, x0, y1, x1, class, confidence. Token ids, with the defaults:

    0                      padding, start symbol, and confidence 0 = "no box here"
    1 .. 2                 confidence: 1 "wrong", 2 "right"
    3 .. 1003              coordinate level 0 .. 1000, in thousandths of the input's side
    1004 .. 1003 + classes class

Axes: N boxes, T tokens, P box slots of a sequence, ... any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

BoxOrder: TypeAlias = Literal["random", "left_to_right"]

TOKENS_PER_BOX = 6
CLASS_SLOT = 4
CONFIDENCE_SLOT = 5
PADDING = 0


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes in the frame of the model's input; leading axes are allowed and shared by all three."""

    yxyx_N4: NDArray[np.float64]
    """Top, left, bottom, right as fractions of the input's side, in [0, 1]; may be inverted."""
    label_N: NDArray[np.int64]
    """Index of the class."""
    confidence_N: NDArray[np.int64]
    """0: there is no box in this slot; above: how sure the policy said it was."""

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def is_present_N(self) -> NDArray[np.bool_]:
        return self.confidence_N > 0

    def __getitem__(self, index: slice | NDArray[np.intp] | NDArray[np.bool_] | int) -> Boxes:
        """Select along the first axis."""
        return Boxes(self.yxyx_N4[index], self.label_N[index], self.confidence_N[index])


@dataclass(frozen=True, slots=True)
class DetectionCodec:
    """Token layout of one class list; equal codecs read each other's sequences."""

    num_classes: int
    max_boxes: int
    max_level: int = 1000
    max_confidence: int = 2

    def __post_init__(self) -> None:
        for name in ("num_classes", "max_boxes", "max_level", "max_confidence"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def first_level(self) -> int:
        """Token of coordinate level 0."""
        return self.max_confidence + 1

    @property
    def first_class(self) -> int:
        """Token of class 0."""
        return self.first_level + self.max_level + 1

    @property
    def vocab_size(self) -> int:
        return self.first_class + self.num_classes

    @property
    def sequence_length(self) -> int:
        return TOKENS_PER_BOX * self.max_boxes

    @property
    def class_positions_P(self) -> NDArray[np.int64]:
        return np.arange(self.max_boxes, dtype=np.int64) * TOKENS_PER_BOX + CLASS_SLOT

    @property
    def confidence_positions_P(self) -> NDArray[np.int64]:
        return np.arange(self.max_boxes, dtype=np.int64) * TOKENS_PER_BOX + CONFIDENCE_SLOT

    def levels(self, coordinate: ArrayLike) -> NDArray[np.int64]:
        """Nearest coordinate level (an exact half goes to the even one), any shape.

        Raises:
            ValueError: a coordinate is NaN or outside [0, 1].
        """
        value = np.asarray(coordinate, dtype=np.float64)
        is_fraction = (value >= 0) & (value <= 1)  # False for NaN
        if not is_fraction.all():
            raise ValueError(
                "box coordinates must be fractions in [0, 1], got "
                f"{value[~is_fraction][:4].tolist()}: clip boxes to the view first"
            )
        return np.rint(value * self.max_level).astype(np.int64)

    def encode(
        self, boxes: Boxes, *, order: BoxOrder = "random", rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """The boxes as tokens [T], padded with zeros.

        Of more than ``max_boxes`` a random subset is kept. The confidence token is the box's own
        confidence: ``max_confidence`` for annotations, the soft target of a box found exactly.

        Args:
            boxes: [N, 4] coordinates; every box present. Crowd regions are for the caller to
                leave out: the reward knows no crowds.
            order: "left_to_right": by the left edge, and where that is the same by the upper one.
            rng: draws the random order, and of too many boxes those that are kept.

        Raises:
            ValueError: a coordinate, class or confidence outside its range.
        """
        if not np.all((boxes.label_N >= 0) & (boxes.label_N < self.num_classes)):
            raise ValueError(
                f"classes must be in 0..{self.num_classes - 1}, got {boxes.label_N.tolist()}"
            )
        if not np.all((boxes.confidence_N >= 1) & (boxes.confidence_N <= self.max_confidence)):
            raise ValueError(
                f"confidences must be in 1..{self.max_confidence}, got "
                f"{boxes.confidence_N.tolist()}"
            )
        kept = boxes[rng.permutation(len(boxes))[: self.max_boxes]]
        if order == "left_to_right":
            y0_N, x0_N = self.levels(kept.yxyx_N4)[:, :2].T
            kept = kept[np.lexsort((y0_N, x0_N))]
        token_P6 = np.full((self.max_boxes, TOKENS_PER_BOX), PADDING, dtype=np.int32)
        token_P6[: len(kept), :CLASS_SLOT] = self.levels(kept.yxyx_N4) + self.first_level
        token_P6[: len(kept), CLASS_SLOT] = kept.label_N + self.first_class
        token_P6[: len(kept), CONFIDENCE_SLOT] = kept.confidence_N
        return token_P6.reshape(-1)

    def decode(self, tokens_T: ArrayLike) -> Boxes:
        """Read any token array [..., T] as boxes [..., P]; every slot, also empty ones.

        There are no malformed sequences: levels, classes and confidences outside their range
        are clipped into it, and a rest shorter than one box is dropped.

        Raises:
            ValueError: the tokens are not integers.

        Source: ``seq2box`` of big_vision's detection reward.
        """
        tokens = np.asarray(tokens_T)
        if not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(f"tokens must be integers, got {tokens.dtype}")
        num_slots = tokens.shape[-1] // TOKENS_PER_BOX
        token_P6 = tokens[..., : num_slots * TOKENS_PER_BOX].astype(np.int64)
        token_P6 = token_P6.reshape(*tokens.shape[:-1], num_slots, TOKENS_PER_BOX)
        level_P4 = np.clip(token_P6[..., :CLASS_SLOT] - self.first_level, 0, self.max_level)
        return Boxes(
            yxyx_N4=level_P4 / self.max_level,
            label_N=np.clip(token_P6[..., CLASS_SLOT] - self.first_class, 0, self.num_classes - 1),
            confidence_N=np.clip(token_P6[..., CONFIDENCE_SLOT], 0, self.max_confidence),
        )
