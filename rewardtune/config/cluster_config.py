"""What a run is spread over. Operations: no weight depends on it."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_serializer,
)

from rewardtune.transport.queue.address import has_password, redacted

MAX_REWARD_WORKERS = 1000
"""Inside Ray, which stalls when many more are asked for at once."""


class ClusterConfig(BaseModel):
    """How many services there are and where they meet."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    address: str | None = None
    """Of the Ray cluster to join, or "auto"; None starts Ray on this machine for the run."""

    num_samplers: PositiveInt = 1
    """Actors that draw; at most one micro-batch each at a time."""

    sampler_gpus: NonNegativeFloat = 0.0
    """Of each sampler."""

    learners: PositiveInt = 1
    """Processes that learn together, each its share of learner.gradient_shards."""

    learner_gpus: NonNegativeFloat = 0.0
    """Of each learner."""

    num_reward_workers: int = Field(default=2, ge=0, le=MAX_REWARD_WORKERS)
    """Actors that score. 0: all of them are outside Ray, which needs ``queue``."""

    queue: str | None = None
    """Address of the job queue: redis://HOST:PORT, "env:NAME" or "file:PATH" of where that stands,
    which a password must (docs/security.md); None: an actor of the run's Ray holds it."""

    lease_seconds: PositiveFloat = 30.0
    """A group whose worker says nothing for so long goes to another one."""

    bind: str = "127.0.0.1"
    """Address that metrics and Control listen on."""

    metrics_port: int = Field(default=9400, ge=0, le=65_535)
    """First of the ports that processes export metrics on; 0: whichever is free."""

    num_metrics_ports: PositiveInt = 100

    @field_serializer("queue")
    def _hide_login(self, queue: str | None) -> str | None:
        # A config is stored, shown and sent. ``load_config`` and the launch refuse a password.
        return redacted(queue) if queue is not None and has_password(queue) else queue

    def check_learners(self, gradient_shards: int, device: Literal["cpu", "cuda", "auto"]) -> None:
        """Raises ValueError where so many learners cannot share the work, or a GPU."""
        if gradient_shards % self.learners:
            raise ValueError(
                f"cluster.learners = {self.learners} does not divide learner.gradient_shards = "
                f"{gradient_shards}: each learner computes as many shards as the others"
            )
        shares_gpu = self.learner_gpus % 1 != 0 or (device == "cuda" and self.learner_gpus == 0)
        if self.learners > 1 and shares_gpu:
            raise ValueError(
                f"cluster.learners = {self.learners} with cluster.learner_gpus = "
                f"{self.learner_gpus:g} would share a GPU, which NCCL refuses: give each learner "
                "whole ones, or set compute.device to 'cpu'"
            )
