"""What the detection task can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rewardtune.tasks.detection.codec import BoxOrder
from rewardtune.tasks.detection.definition import (
    MAP_THRESHOLDS,
    RECALL_THRESHOLDS,
    Aggregate,
    check_thresholds,
)
from rewardtune.tasks.options import read_options

RECALL_DEFAULTS: Mapping[str, Any] = {
    "iou_thresholds": RECALL_THRESHOLDS,
    "confidence_weight": 0.0,
}
"""Where the paper's recall run differs: one threshold, and confidence is not taught."""

RENAMED: Mapping[str, str] = {"repeats_keep_overlap": "duplicates_keep_overlap"}
"""Options by what they were once called."""


class DetectionConfig(BaseModel):
    """Options of ``load_task("detection", ...)``; part of a run's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_boxes: int = Field(default=100, ge=1)
    """Box slots of a sequence, six tokens each."""

    reward: Literal["map", "recall"] = "map"
    """"map": weighted by class frequency, over ten thresholds; "recall": every object counts 1."""

    aggregate: Aggregate = "mean"
    """How thresholds are averaged; "big_vision" as the published function does by mistake."""

    iou_thresholds: tuple[float, ...] = MAP_THRESHOLDS
    """Rising, in (0, 1]. The recall reward's default is 0.5 alone."""

    duplicate_penalty: float = Field(default=0.3, ge=0)
    """Objects lost per box that finds an object again."""

    box_order: BoxOrder = "random"
    """In which maximum likelihood is taught the boxes of an image: in another order for each
    example, as published, or by their left edge. In a given order each next box is less of a
    guess (docs/detection_digits.md). The reward knows no order."""

    class_rewards: bool = False
    """Tell the learner what each box would have earned under every class, so that the gradient has
    no noise from the class's draw. Needs ``learner.discount = 0`` and leave_one_out."""

    class_weight_smoothing: float = Field(default=0.05, ge=0)
    """Share of all instances added to each class's count before it is inverted; "map" only."""

    wrong_box_ratio: float = Field(default=0.0, ge=0, le=1)
    """Boxes marked "wrong" that maximum likelihood adds per annotated box (``wrong_boxes``).

    A likelihood model that never saw that token gives it a probability of e^-12 and less; to
    bring it up, the confidence loss then moves the whole network before any reward counts.
    """

    confidence_weight: float = Field(default=0.3, ge=0)
    """Weight of the loss that teaches confidence tokens; 0 for the recall reward by default."""

    duplicates_keep_overlap: bool = True
    """What the confidence of a box that finds an object again is taught: its overlap, as published,
    or else 0, as mAP counts it wrong wherever it ranks behind the first."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_reward(cls, options: Any) -> Any:
        if isinstance(options, Mapping) and options.get("reward") == "recall":
            return {**RECALL_DEFAULTS, **options}
        return options

    @model_validator(mode="after")
    def _is_possible(self) -> DetectionConfig:
        check_thresholds(self.iou_thresholds)
        if self.reward == "recall" and "class_weight_smoothing" in self.model_fields_set:
            raise ValueError("class_weight_smoothing needs reward 'map': 'recall' has no weights")
        return self


def read_config(options: Mapping[str, Any]) -> DetectionConfig:
    """Validate the task's options.

    Raises:
        ValueError: one line with key, value and what would be valid.
    """
    for old, new in RENAMED.items():
        if old in options:
            raise ValueError(f"task_options.{old} is now called task_options.{new}: rename it")
    return read_options(DetectionConfig, options, task="detection")
