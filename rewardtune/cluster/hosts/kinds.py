"""The kinds of hosts that a run has, and what the cluster must know of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rewardtune.cluster.hosts.evaluator import EvaluatorHost
from rewardtune.cluster.hosts.learner import LearnerHost
from rewardtune.cluster.hosts.learner_rank import LearnerRankHost
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost
from rewardtune.cluster.hosts.sampler import SamplerHost
from rewardtune.transport.telemetry.metric_table import Role

HostT_co = TypeVar("HostT_co", covariant=True)


class LoneHost(Protocol):
    """A host that begins without waiting for another."""

    def begin(self) -> Process: ...


@dataclass(frozen=True, slots=True)
class HostKind(Generic[HostT_co]):
    """One kind: what it is built from, and how it is called."""

    role: Role
    """What operators call it."""
    build: type[HostT_co]
    """Built from ``HostSettings`` as JSON, in a process of its own."""
    num_concurrent_calls: int = 1
    """Calls that it serves at a time; the others wait, in the order in which they were made."""
    is_needed_to_the_end: bool = True
    """False: one that dies while the run ends has nothing left to do."""
    knows_secret: bool = False
    """It signs groups or terms as the run's."""


LEARNER = HostKind(Role.LEARNER, LearnerHost, knows_secret=True)
LEARNER_RANK = HostKind(Role.LEARNER_RANK, LearnerRankHost)
SAMPLER = HostKind(Role.SAMPLER, SamplerHost, is_needed_to_the_end=False, knows_secret=True)
EVALUATOR = HostKind(Role.EVALUATOR, EvaluatorHost)
REWARD_WORKER = HostKind(
    Role.REWARD_WORKER,
    RewardWorkerHost,
    num_concurrent_calls=2,  # it runs until it is told to drain
    is_needed_to_the_end=False,
)
