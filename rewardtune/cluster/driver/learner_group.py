"""The learner as its driver sees it: one service, of one process or of several ranks.

Rank 0 holds the term and does all that others see; the rest (``learner_rank``) compute with it. All
are called at once for each step, and no rank waits for another outside of one: a pause, a
checkpoint or a stop needs no more than that nobody calls. They live and die together: when one is
gone, all start again from the checkpoint, which counts as one restart of the learner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from learner.ranks import RankLost
from rewardtune.cluster.driver.cluster import Call, ReplyT, ServiceDied
from rewardtune.cluster.driver.fleet import Fleet, first_line
from rewardtune.cluster.driver.service import Request, Service
from rewardtune.cluster.hosts.kinds import LEARNER, LEARNER_RANK
from rewardtune.cluster.hosts.learner import LearnerHost
from rewardtune.cluster.hosts.learner_rank import LearnerRankHost
from rewardtune.cluster.hosts.replies import Claimed, Joined, Process, Stepped
from rewardtune.run.log import RunLog
from rewardtune.transport.queue.job_queue import QueueUnavailable
from rewardtune.transport.weights.weight_store import WeightsUnavailable


@dataclass(frozen=True, slots=True)
class _Ranks:
    """The services that learn together: all of them live, or none."""

    learner: Service[LearnerHost]
    """Rank 0."""
    others: Sequence[Service[LearnerRankHost]]
    """From rank 1 on."""

    @property
    def all(self) -> list[Service[Any]]:
        return [self.learner, *self.others]


class LearnerEvents(Protocol):
    """What the driver does about what the learner does."""

    def learner_joined(self, joined: Joined, *, term: int) -> None:
        """It is ready for its first step in this term."""
        ...

    def learner_stepped(self, stepped: Stepped) -> None:
        """A batch is consumed."""
        ...

    def learner_lost(self) -> None:
        """Its term is over; it starts again if it can."""
        ...

    def wants_learner(self) -> bool:
        """Whether it is of use to wait for one that cannot begin."""
        ...


class LearnerGroup:
    """Starts the ranks, calls them, and starts all of them again when one is gone."""

    def __init__(self, fleet: Fleet, *, num_ranks: int, log: RunLog, events: LearnerEvents) -> None:
        self._fleet = fleet
        self._log = log
        self._events = events
        self._num_ranks = num_ranks
        self._ranks: _Ranks | None = None
        self._attempt = 0
        self._furthest = 0
        self._is_idle = False
        self.is_over = False
        """It has finished, or was let go."""

    @property
    def ranks(self) -> list[Service[Any]]:
        """Rank 0 first; none before the start and after the end."""
        return [] if self._ranks is None else self._ranks.all

    @property
    def is_idle(self) -> bool:
        """It has begun and does nothing."""
        return self._is_idle

    def start(self) -> None:
        self._ranks = _Ranks(
            self._fleet.start("learner", LEARNER),
            [
                self._fleet.start(f"learner-{rank}", LEARNER_RANK)
                for rank in range(1, self._num_ranks)
            ],
        )
        self._begin()

    def step(self) -> None:
        """Consume a batch if it is complete within a second; not, if it is not."""
        ranks = self._started
        requests: list[Request[Stepped | None]] = [
            ranks.learner.request(LearnerHost.step),
            *(rank.request(LearnerRankHost.step) for rank in ranks.others),
        ]
        self._call(requests, self._on_step)

    def save(self) -> None:
        """Write a checkpoint unless this version has one."""
        self._call([self._started.learner.request(LearnerHost.save)], self._on_saved)

    def finish(self) -> None:
        """Write checkpoint and policy, and end."""
        self._call([self._started.learner.request(LearnerHost.finish)], self._on_finished)

    @property
    def _started(self) -> _Ranks:
        assert self._ranks is not None, "it starts before it is called"
        return self._ranks

    # What the calls come to.

    def _begin(self) -> None:
        self._call(
            [self._started.learner.request(LearnerHost.begin)], self._on_begun, waits_for_queue=True
        )

    def _on_begun(self, replies: Sequence[Claimed]) -> None:
        ranks, (claimed,) = self._started, replies
        ranks.learner.has_begun(claimed.process)
        # Only now: rank 0 alone decides which checkpoint is the newest.
        self._call(
            [rank.request(LearnerRankHost.begin, claimed.checkpoint) for rank in ranks.others],
            lambda begun: self._on_all_begun(claimed, begun),
            waits_for_queue=True,
        )

    def _on_all_begun(self, claimed: Claimed, begun: Sequence[Process]) -> None:
        ranks = self._started
        for rank, process in zip(ranks.others, begun, strict=True):
            rank.has_begun(process)
        # And only now do they wait for each other.
        address = claimed.meeting_address
        self._call(
            [
                ranks.learner.request(LearnerHost.join),
                *(
                    rank.request(LearnerRankHost.join, rank=number, address=address)
                    for number, rank in enumerate(ranks.others, start=1)
                ),
            ],
            lambda joined: self._on_joined(claimed, joined[0]),
            waits_for_queue=True,
        )

    def _on_joined(self, claimed: Claimed, joined: Joined) -> None:
        for message in claimed.messages:
            self._log.message(message)
        self._rest()
        self._events.learner_joined(joined, term=claimed.term)

    def _on_step(self, replies: Sequence[Stepped | None]) -> None:
        self._rest()
        stepped = replies[0]
        if stepped is None:
            return
        if stepped.version > self._furthest:  # it may die again and again at the same step
            self._furthest = stepped.version
            self._started.learner.deaths_in_a_row = 0
        self._events.learner_stepped(stepped)

    def _on_saved(self, replies: Sequence[None]) -> None:
        self._rest()

    def _on_finished(self, replies: Sequence[None]) -> None:
        self._let_go()

    # Calling all, and starting all again.

    def _call(
        self,
        requests: Sequence[Request[ReplyT]],
        then: Callable[[Sequence[ReplyT]], None],
        *,
        waits_for_queue: bool = False,
    ) -> None:
        """Call one rank or several.

        Args:
            then: given their replies, in the order of the requests, when all are there.
            waits_for_queue: while queue or weights are away, ask again.
        """
        self._is_idle = False
        if not requests:
            then([])
            return
        replies: dict[int, ReplyT] = {}
        attempt = self._attempt

        def ask(number: int) -> None:
            self._fleet.call(requests[number], lambda call: settle(call, number))

        def settle(call: Call[ReplyT], number: int) -> None:
            if attempt != self._attempt:
                return  # of processes that are gone
            try:
                replies[number] = call.result()
            except (QueueUnavailable, WeightsUnavailable) as error:
                if waits_for_queue:
                    self._cannot_begin(error, again=lambda: ask(number))
                else:  # of a step that could not be published nothing must remain
                    self._restart(error, requests[number].service)
            except (ServiceDied, RankLost) as error:
                self._restart(error, requests[number].service)
            except Exception as error:
                self._fleet.fail(error)
            else:
                if len(replies) == len(requests):
                    then([replies[n] for n in range(len(requests))])

        for number in range(len(requests)):
            ask(number)

    def _cannot_begin(self, error: Exception, *, again: Callable[[], None]) -> None:
        self._log.message(f"the learner cannot begin yet: {first_line(error)}")
        if self._events.wants_learner():
            again()
        else:  # what its last checkpoint holds is all there is
            self._let_go()

    def _restart(self, error: Exception, culprit: Service[Any]) -> None:
        self._attempt += 1
        self._is_idle = False
        self._events.learner_lost()
        ranks = self._started
        if culprit is not ranks.learner:
            error = ServiceDied(f"{culprit.name}: {first_line(error)}")
        if self._fleet.revive(ranks.learner, error):
            for rank in ranks.others:
                self._fleet.replace(rank)
            self._begin()

    def _rest(self) -> None:
        self._is_idle = True
        for rank in self.ranks:
            rank.is_idle = True

    def _let_go(self) -> None:
        self._attempt += 1
        self._fleet.end(self.ranks)
        self._ranks = None
        self._is_idle, self.is_over = False, True
