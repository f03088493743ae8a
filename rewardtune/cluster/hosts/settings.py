"""What every host of a run is told when it is built, and how it waits for what it needs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.address import find_url
from rewardtune.transport.queue.job_queue import QueueUnavailable
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.weights.weight_store import WeightsUnavailable

_RETRY_SECONDS = 1.0


class HostSettings(BaseModel):
    """What every host is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: RunConfig
    """Pinned."""
    queue: str
    """Address of the job queue."""
    queue_url: str = Field(default="", repr=False)
    """What the driver found at an address that says where the URL stands; else empty."""
    weights: str
    """URL of the weight store."""
    spec: str
    """What reward workers must know, as JSON."""
    run_id: str = ""
    secret: str = Field(default="", repr=False)
    """The run's, in hex; empty where the host is of a kind that signs nothing."""
    fork: bool = False

    @property
    def queue_here(self) -> str:
        """Address of the queue for this process.

        What its own environment or file says, which may be a user of fewer rights than the
        driver's; where it has neither, what the driver found.
        """
        try:
            find_url(self.queue)
        except ValueError:
            return self.queue_url or self.queue
        return self.queue

    @property
    def seal(self) -> RunSeal:
        """Of a host that was told the secret."""
        assert self.secret, "a host of this kind is told no secret"
        return RunSeal(self.run_id, bytes.fromhex(self.secret))


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Let an error of the queue or the store go on after a pause: the driver asks again at once."""
    try:
        yield
    except (QueueUnavailable, WeightsUnavailable):
        time.sleep(_RETRY_SECONDS)
        raise
