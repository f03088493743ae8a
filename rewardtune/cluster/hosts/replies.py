"""What a host answers its driver with; how it is asked is the signature of its method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """Where a host that has begun is found."""

    pid: int
    metrics_address: str
    """host:port that Prometheus can scrape."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """The learner has begun: it holds a term of the run and knows what to start from."""

    process: Process
    term: int
    messages: tuple[str, ...]
    """What opening the run's directory had to say, for the log."""
    checkpoint: Path | None
    """The folder that all ranks start from; None: the policy that the config names."""
    meeting_address: str
    """host:port at which the other ranks meet this one; empty where there are none."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A rank of the learner is ready for its first step."""

    version: int
    """The policy version it stands at."""
    candidate: Path | None = None
    """A policy to measure."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """The learner has consumed a batch and published what came of it."""

    version: int
    record: Mapping[str, float]
    """The step as the log tells it."""
    num_invalid: int
    """Groups of the batch that nobody could score."""
    messages: tuple[str, ...] = ()
    """What was wrong with the queue meanwhile, for the log."""
    candidate: Path | None = None
    """A policy to measure."""
