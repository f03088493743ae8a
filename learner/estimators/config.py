"""Which estimators there are, and what they can be told. Reads without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

EstimatorName = Literal["first", "leave_one_out"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is known of an estimator before torch is loaded."""

    place: tuple[str, str]
    """Module and class; imported when a learner is made."""
    num_trained: Callable[[int], int]
    """Of so many rollouts of a group how many are trained on; the others are their baseline."""
    min_samples: int = 1
    """Fewest rollouts of a group that it can do with."""


CHOICES: Mapping[EstimatorName, Choice] = {
    "first": Choice(("learner.estimators.first", "First"), num_trained=lambda num_samples: 1),
    "leave_one_out": Choice(
        ("learner.estimators.leave_one_out", "LeaveOneOut"),
        num_trained=lambda num_samples: num_samples,
        min_samples=2,
    ),
}


class EstimatorConfig(BaseModel):
    """How a loss follows from rewards."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    estimator: EstimatorName = "first"
    """first: train on one rollout, the others are its baseline (the paper's algorithm 2).
    leave_one_out: train on all, each with the others as its baseline."""

    baseline: bool = True
    """False: the advantage is the reward itself."""

    discount: float | None = Field(default=None, ge=0, le=1)
    """None: every token answers for the whole reward (the paper). Else for what its own step of the
    sequence earned and, each step further on discounted once more, for what later steps did: 1 is
    the reward to go, 0 the step's own. Of tasks that tell it by step: detection, box by box."""

    reward_weight: float = Field(default=1.0, ge=0)
    """Weight of the policy gradient beside the task's soft targets; 0 leaves only these."""

    def num_trained(self, num_samples: int) -> int:
        """How many of a group's rollouts are trained on."""
        return CHOICES[self.estimator].num_trained(num_samples)

    @property
    def min_samples(self) -> int:
        """Fewest rollouts of a group that the estimator can do with."""
        return CHOICES[self.estimator].min_samples

    def check_token_rewards(self) -> None:
        """For tasks that reward tokens which were not drawn.

        Raises:
            ValueError: these settings cannot use them.
        """
        if self.discount != 0 or self.estimator != "leave_one_out":
            discount = "no learner.discount" if self.discount is None else self.discount
            raise ValueError(
                "rewards of tokens that were not drawn (task_options.class_rewards of detection) "
                "need learner.discount = 0, since what later steps would have earned is unknown, "
                f"and learner.estimator = 'leave_one_out', got {discount} and '{self.estimator}': "
                "set these, or leave the task's option out"
            )
