"""What a reward worker can be told."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from rewardtune.transport.queue.job_queue import QueueLimits


class RewardWorkerConfig(BaseModel):
    """Built once, never mutated. What is scored, and how, comes with the term instead."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_scorers: PositiveInt = 1
    """Child processes, each scoring one group at a time."""

    threads: PositiveInt = 1
    """Of each scorer. Part of the reward digest: it must be what the run was started with."""

    deadline_seconds: PositiveFloat = 60.0
    """For one group; a scorer that takes longer is killed."""

    startup_seconds: PositiveFloat = 180.0
    """For a scorer to open the data set, compile and score the golden examples."""

    max_groups_per_scorer: PositiveInt | None = None
    """A scorer is replaced after so many groups: for rewards that leak memory."""

    prefetch: NonNegativeInt = 1
    """Groups leased beyond those being scored, so that no scorer waits for the queue."""

    lease_seconds: PositiveFloat = QueueLimits().lease_seconds
    """The queue's; leases are renewed at a third of it."""

    heartbeat_seconds: PositiveFloat = 2.0

    drain_seconds: PositiveFloat = 10.0
    """How long a worker that was asked to stop waits for the groups it is scoring."""
