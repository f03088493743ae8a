"""The learner as its driver sees it: one service, of one process or of several ranks.

Rank 0 holds the term and does all that others see; the rest (``learner_rank``) compute with it. All
are called at once for each step, and no rank waits for another outside of one: a pause, a
checkpoint or a stop needs no more than that nobody calls. They live and die together: when one is
gone, all start again from the checkpoint, which counts as one restart of the learner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from learner.ranks import RankLost
from rewardtune.cluster.driver.cluster import Call, ServiceDied
from rewardtune.cluster.driver.fleet import Fleet, Hosted, first_line
from rewardtune.run.log import RunLog
from rewardtune.transport.queue.job_queue import QueueUnavailable
from rewardtune.transport.weights.weight_store import WeightsUnavailable

_Calls = Mapping[Hosted, tuple[Any, ...]]
"""Who is called, and with what."""


class LearnerEvents(Protocol):
    """What the driver does about what the learner does."""

    def learner_joined(self, begun: Mapping[str, Any]) -> None:
        """It is ready for its first step: as ``LearnerHost.begin`` and ``join`` returned."""
        ...

    def learner_stepped(self, stepped: Mapping[str, Any]) -> None:
        """A batch is consumed: as ``LearnerHost.step`` returned."""
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
        self._ranks: list[Hosted] = []
        self._attempt = 0
        self._furthest = 0
        self._is_idle = False
        self.is_over = False
        """It has finished, or was let go."""

    @property
    def ranks(self) -> list[Hosted]:
        """Rank 0 first."""
        return list(self._ranks)

    @property
    def is_idle(self) -> bool:
        """It has begun and does nothing."""
        return self._is_idle

    def start(self) -> None:
        self._ranks = [
            self._fleet.start("learner", "learner"),
            *(
                self._fleet.start(f"learner-{rank}", "learner_rank")
                for rank in range(1, self._num_ranks)
            ),
        ]
        self._begin()

    def step(self) -> None:
        """Consume a batch if it is complete within a second; not, if it is not."""
        self._call("step", dict.fromkeys(self._ranks, ()), self._on_step)

    def save(self) -> None:
        """Write a checkpoint unless this version has one."""
        self._call("save", {self._ranks[0]: ()}, self._on_saved)

    def finish(self) -> None:
        """Write checkpoint and policy, and end."""
        self._call("finish", {self._ranks[0]: ()}, self._on_finished)

    # What the calls come to.

    def _begin(self) -> None:
        self._call("begin", {self._ranks[0]: ()}, self._on_begun)

    def _on_begun(self, answers: Mapping[Hosted, Any]) -> None:
        learner, *others = self._ranks
        begun = answers[learner]
        learner.tell(begun)
        # Only now: rank 0 alone decides which checkpoint is the newest.
        self._call(
            "begin",
            dict.fromkeys(others, (begun["checkpoint"],)),
            lambda told: self._on_all_begun(begun, told),
        )

    def _on_all_begun(self, begun: Mapping[str, Any], told: Mapping[Hosted, Any]) -> None:
        for hosted, whereabouts in told.items():
            hosted.tell(whereabouts)
        # And only now do they wait for each other.
        learner, *others = self._ranks
        joining = {rank: (n, begun["address"]) for n, rank in enumerate(others, start=1)}
        self._call(
            "join",
            {learner: (), **joining},
            lambda answers: self._on_joined({**begun, **answers[learner]}),
        )

    def _on_joined(self, begun: Mapping[str, Any]) -> None:
        for message in begun["messages"]:
            self._log.message(message)
        self._rest()
        self._events.learner_joined(begun)

    def _on_step(self, answers: Mapping[Hosted, Any]) -> None:
        self._rest()
        stepped = answers[self._ranks[0]]
        if stepped is None:
            return
        if stepped["version"] > self._furthest:  # it may die again and again at the same step
            self._furthest = stepped["version"]
            self._ranks[0].deaths_in_a_row = 0
        self._events.learner_stepped(stepped)

    def _on_saved(self, answers: Mapping[Hosted, Any]) -> None:
        self._rest()

    def _on_finished(self, answers: Mapping[Hosted, Any]) -> None:
        self._let_go()

    # Calling all, and starting all again.

    def _call(
        self, method: str, calls: _Calls, then: Callable[[Mapping[Hosted, Any]], None]
    ) -> None:
        """Call a method of several ranks; ``then`` is given their answers when all are there."""
        self._is_idle = False
        if not calls:
            then({})
            return
        answers: dict[Hosted, Any] = {}
        attempt = self._attempt

        def ask(hosted: Hosted) -> None:
            self._fleet.call(hosted, method, lambda call: settle(call, hosted), *calls[hosted])

        def settle(call: Call, hosted: Hosted) -> None:
            if attempt != self._attempt:
                return  # of processes that are gone
            try:
                answers[hosted] = self._fleet.result(call)
            except (QueueUnavailable, WeightsUnavailable) as error:
                if method in ("begin", "join"):
                    self._cannot_begin(error, again=lambda: ask(hosted))
                else:  # of a step that could not be published nothing must remain
                    self._restart(error, hosted)
            except (ServiceDied, RankLost) as error:
                self._restart(error, hosted)
            except Exception as error:
                self._fleet.fail(error)
            else:
                if len(answers) == len(calls):
                    then(answers)

        for hosted in calls:
            ask(hosted)

    def _cannot_begin(self, error: Exception, *, again: Callable[[], None]) -> None:
        self._log.message(f"the learner cannot begin yet: {first_line(error)}")
        if self._events.wants_learner():
            again()
        else:  # what its last checkpoint holds is all there is
            self._let_go()

    def _restart(self, error: Exception, culprit: Hosted) -> None:
        self._attempt += 1
        self._is_idle = False
        self._events.learner_lost()
        learner, *others = self._ranks
        if culprit is not learner:
            error = ServiceDied(f"{culprit.service.name}: {first_line(error)}")
        if self._fleet.revive(learner, error):
            for hosted in others:
                self._fleet.replace(hosted)
            self._begin()

    def _rest(self) -> None:
        self._is_idle = True
        for hosted in self._ranks:
            hosted.is_idle = True

    def _let_go(self) -> None:
        self._attempt += 1
        self._fleet.end(self._ranks)
        self._ranks = []
        self._is_idle, self.is_over = False, True
