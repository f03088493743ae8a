"""What a run is spread over. Operations: no weight depends on it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt


class ClusterConfig(BaseModel):
    """How many services there are and where they meet."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    address: str | None = None
    """Of the Ray cluster to join, or "auto"; None starts Ray on this machine for the run."""

    num_samplers: PositiveInt = 1
    """Actors that draw; at most one micro-batch each at a time."""

    sampler_gpus: NonNegativeFloat = 0.0
    """Of each sampler."""

    learner_gpus: NonNegativeFloat = 0.0

    num_reward_workers: int = Field(default=2, ge=0)
    """Actors that score. 0: all of them are outside Ray, which needs ``redis``."""

    redis: str | None = None
    """URL of the Redis that holds the job queue; None: a Ray actor holds it."""

    lease_seconds: PositiveFloat = 30.0
    """A group whose worker says nothing for so long goes to another one."""

    bind: str = "127.0.0.1"
    """Address that metrics and Control listen on."""

    metrics_port: int = Field(default=9400, ge=0, le=65_535)
    """First of the ports that processes export metrics on; 0: whichever is free."""

    num_metrics_ports: PositiveInt = 100
