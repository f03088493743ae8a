"""Reward workers in simulated time: they renew, fail, come late, and say things twice."""

from __future__ import annotations

import random
from dataclasses import replace

from rewardtune.transport.queue.job_queue import Failure, FailureKind, Job, QueueUnavailable
from tests.faults.event_world import Call, Process, World

POLL_SECONDS = 0.15
"""Between two questions of whoever waits for something, or could not reach the queue."""
_KINDS = tuple(FailureKind)
_MESSAGES = ("boom", "bang")


class Scoring:
    """What all workers of a run share, and what one of them does."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        *,
        poison: set[int],
        lease_seconds: float,
        drain: float,
        lie: float,
    ) -> None:
        """
        Args:
            poison: ordinals that nobody can score.
            lie: how likely a worker reports what is no score of the job it holds.
            drain: how likely a worker is asked to leave while it holds jobs.
        """
        self.poison = poison
        self.scores: set[bytes] = set()
        """Whatever anybody has come to."""
        self.num_lies = 0
        self._world = world
        self._rng = rng
        self._lease_seconds = lease_seconds
        self._drain = drain
        self._lie = lie

    def work(self, name: str) -> Process:
        """Until it is drained: score what it leases, one job after the other."""
        while True:
            max_jobs = 1 + int(self._rng.random() * 2)
            try:
                jobs: list[Job] = yield ("lease", name, {"max_jobs": max_jobs})
            except QueueUnavailable:
                jobs = []
            if not jobs:
                yield POLL_SECONDS
            elif self._world.happens(self._drain):
                for job in jobs:
                    yield from _reported(("give_back", job, name))
                return
            for job in jobs:
                yield from self._score(job, name)

    def _score(self, job: Job, name: str) -> Process:
        left = 0.02 + 0.25 * self._rng.random()
        if self._world.happens(0.1):
            left *= 10  # longer than a lease, which it has to renew
        while left > 0:
            part = min(left, self._lease_seconds / 3)
            yield part
            left -= part
            if left > 0:
                try:
                    yield ("renew", job, name)
                except QueueUnavailable:
                    continue
        if self._world.happens(self._lie):
            yield from _reported(("commit", *self._lied(job, name)))
            return
        failure = self._failure(job.ordinal)
        if failure is not None:
            yield from _reported(("fail", job, name, failure))
            return
        scored = b"%b by %b in %b" % (job.body, name.encode(), job.lease.encode())
        self.scores.add(scored)
        yield from _reported(("commit", job, name, scored))
        if self._world.happens(0.05):
            # It scored the job once more, and came to other bytes.
            self.scores.add(scored + b", again")
            yield from _reported(("commit", job, name, scored + b", again"))

    def _lied(self, job: Job, name: str) -> tuple[Job, str, bytes]:
        """A commit of another group, of none, of one without its seal, or of a reward of NaN."""
        self.num_lies += 1
        honest = b"%b by %b in %b" % (job.body, name.encode(), job.lease.encode())
        scored, seal = self._rng.choice(
            (
                (b"FORGED", job.seal),
                (b"group %d of nobody by %b in it" % (job.ordinal, name.encode()), job.seal),
                (b"group %d of draw-1 by %b in it" % (job.ordinal + 1, name.encode()), job.seal),
                (honest, b""),
                (honest, job.seal[::-1]),
                (honest + b", NaN", job.seal),
            )
        )
        return replace(job, seal=seal), name, scored

    def _failure(self, ordinal: int) -> Failure | None:
        if ordinal in self.poison:
            return Failure(FailureKind.EXCEPTION, "poison")
        if self._world.happens(0.08):
            return Failure(self._rng.choice(_KINDS), self._rng.choice(_MESSAGES))
        return None


def _reported(call: Call) -> Process:
    """A worker does not forget what it has to say."""
    while True:
        try:
            yield call
        except QueueUnavailable:
            yield POLL_SECONDS
        else:
            return
