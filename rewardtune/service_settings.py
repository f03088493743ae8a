"""What every service of a run is told when it is built."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from rewardtune.config import RunConfig


class ServiceSettings(BaseModel):
    """What every service is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: RunConfig
    """Pinned."""
    queue: str
    """URL of the job queue."""
    weights: str
    """URL of the weight store."""
    spec: str
    """What reward workers must know, as JSON."""
    fork: bool = False
