"""Reward workers whose commit is not atomic: a result can be seen, or left behind, half done.

A build for ``tests.faults.crash_equivalence``, which must find it out.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, cast
from unittest import mock

import numpy as np

from rewardtune.cluster.driver.cluster import HostT, RemoteHost
from rewardtune.cluster.hosts import reward_worker as reward_worker_host
from rewardtune.cluster.hosts.kinds import REWARD_WORKER, HostKind
from rewardtune.cluster.hosts.replies import Process
from rewardtune.cluster.hosts.reward_worker import RewardWorkerHost
from rewardtune.cluster.ray_cluster import RayCluster
from rewardtune.records import ScoredGroup
from rewardtune.records.score_promise import STEP_REWARD
from rewardtune.transport.queue.job_queue import CommitOutcome, Job, JobQueue, QueueLimits
from rewardtune.transport.queue.redis_queue import RedisJobQueue
from rewardtune.transport.security.config import SecurityConfig
from rewardtune.transport.wire import scored_group_from_bytes, scored_group_to_bytes

PAUSE_SECONDS = 0.02
"""Between the two writes."""


class TwoWritesQueue(RedisJobQueue):
    """Settles a job first, with rewards that are yet to come, and fills them in afterwards."""

    def commit(self, job: Job, worker: str, scored: bytes) -> CommitOutcome:
        half = without_rewards(scored)
        outcome = super().commit(job, worker, half)
        if outcome is CommitOutcome.ACCEPTED:
            key = self._key(f"{job.term}:result:{job.ordinal}")
            stored: Any = self._client.get(key)
            pause()
            if stored is not None:
                self._client.set(key, stored.removesuffix(half) + scored, xx=True)
        return outcome


def pause() -> None:
    time.sleep(PAUSE_SECONDS)


def without_rewards(scored: bytes) -> bytes:
    whole = scored_group_from_bytes(scored)
    unknown_S = np.zeros_like(whole.score.reward_S)
    # Those of steps too, or the learner would see that they do not sum to the reward.
    aux = {
        name: np.zeros_like(values) if name == STEP_REWARD else values
        for name, values in whole.score.aux.items()
    }
    score = replace(whole.score, reward_S=unknown_S, aux=aux)
    return scored_group_to_bytes(ScoredGroup(whole.group, score))


class TwoWritesHost(RewardWorkerHost):
    """A reward worker of that build; ``queue`` must be a Redis."""

    def begin(self) -> Process:
        with mock.patch.object(reward_worker_host, "connect_queue", _connect):
            return super().begin()


class TwoWritesCluster(RayCluster):
    """Starts workers of that build in the place of ours."""

    def start(
        self, name: str, kind: HostKind[HostT], settings: str, *, num_cpus: int, num_gpus: float
    ) -> RemoteHost[HostT]:
        if kind == REWARD_WORKER:
            kind = replace(kind, build=cast("type[HostT]", TwoWritesHost))
        return super().start(name, kind, settings, num_cpus=num_cpus, num_gpus=num_gpus)


def _connect(url: str, *, run: str, lease_seconds: float, security: SecurityConfig) -> JobQueue:
    limits = QueueLimits(lease_seconds=lease_seconds)
    return TwoWritesQueue.connect(url, run=run, limits=limits, security=security)
