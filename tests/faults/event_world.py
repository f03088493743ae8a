"""Processes that fail and messages that get lost, in simulated time, from one seed.

A process is a generator. It yields seconds to sleep, or a call of the queue, ``("put", term,
ordinal, body)``, and is sent the answer; what the queue refused, or nobody answered, is thrown.
At each yield the world may pause the process or kill it; each call may be lost, delayed,
answered in vain, or delivered a second time.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from rewardtune.transport.queue.job_queue import QueueUnavailable
from tests.faults.watched_queue import REFUSALS, WatchedQueue

Call = tuple[Any, ...]
Process = Generator[float | Call, Any, None]
CALL_TIMEOUT_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely is what, while the world is not calm yet."""

    loss: float
    """Of a request or of its answer."""
    repeat: float
    delay: float
    """Of a message that takes up to ``max_delay_seconds``; the others take some milliseconds."""
    kill: float
    """Of a process, at any of its yields."""
    pause: float
    max_delay_seconds: float


class _Task:
    """One process as the world runs it."""

    __slots__ = ("generator", "name", "on_death", "on_end")

    def __init__(
        self,
        name: str,
        generator: Process,
        *,
        on_end: Callable[[], None],
        on_death: Callable[[], None] | None,
    ) -> None:
        self.name = name
        self.generator: Process | None = generator
        self.on_end = on_end
        self.on_death = on_death


class World:
    """Time, the network and the queue."""

    def __init__(
        self,
        queue: WatchedQueue,
        rng: random.Random,
        *,
        faults: Faults,
        calm_at: float,
        tell: Callable[[str], None] | None,
    ) -> None:
        """
        Args:
            calm_at: no fault happens after this time.
            tell: hears of every event.
        """
        self.queue = queue
        self.now = 0.0
        self.queue_away_until = 0.0
        """Till then nobody reaches the queue."""
        self.num_events = 0
        self.num_kills = 0
        self._random = rng.random
        self._faults = faults
        self._calm_at = calm_at
        self._tell = tell
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._num_scheduled = 0

    def is_calm(self) -> bool:
        return self.now >= self._calm_at

    def happens(self, probability: float) -> bool:
        """Whether a fault of such probability strikes now."""
        return self.now < self._calm_at and self._random() < probability

    def tell(self, what: str) -> None:
        if self._tell is not None:
            self._tell(f"{self.now:9.3f}  {what}")

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        self._num_scheduled += 1
        heapq.heappush(self._events, (self.now + seconds, self._num_scheduled, act, arguments))

    def run(self, *, until: float, is_over: Callable[[], bool]) -> bool:
        """Whether it was over in time."""
        events = self._events
        while events and not is_over():
            self.now, _, act, arguments = heapq.heappop(events)
            if self.now > until:
                return False
            self.num_events += 1
            act(*arguments)
        return is_over()

    def start(
        self,
        name: str,
        process: Process,
        *,
        on_end: Callable[[], None],
        on_death: Callable[[], None] | None = None,
    ) -> None:
        """Run a process.

        Args:
            on_end: it returned.
            on_death: it was killed; without this it never is.
        """
        task = _Task(name, process, on_end=on_end, on_death=on_death)
        self.after(0.0, self._resume, task, None, None)

    def _resume(self, task: _Task, answer: Any, error: Exception | None) -> None:
        generator = task.generator
        if generator is None:
            return
        try:
            asked = generator.send(answer) if error is None else generator.throw(error)
        except StopIteration:
            task.generator = None
            task.on_end()
            return
        faults = self._faults
        is_killed = task.on_death is not None and self.happens(faults.kill)
        if isinstance(asked, float):
            if not is_killed:
                self.after(asked + self._pause(), self._resume, task, None, None)
        elif not is_killed or self._random() < 0.5:  # dead before its call, or after
            self._send(task, asked)
        if is_killed:
            self.num_kills += 1
            self.tell(f"{task.name} is killed")
            task.generator = None
            assert task.on_death is not None
            task.on_death()

    def _pause(self) -> float:
        """Of a process, before it goes on: usually none."""
        if self.happens(self._faults.pause):
            return self._random() * self._faults.max_delay_seconds
        return 0.0

    def _delay(self) -> float:
        if self.happens(self._faults.delay):
            return self._random() * self._faults.max_delay_seconds
        return 0.001 + 0.02 * self._random()

    def _send(self, task: _Task, call: Call) -> None:
        faults = self._faults
        if self.now < self.queue_away_until or self.happens(faults.loss):
            self.tell(f"{task.name}: {call} is lost")
            self.after(CALL_TIMEOUT_SECONDS, self._resume, task, None, _nobody_answers())
            return
        life = self.queue.num_wipes
        self.after(self._delay(), self._deliver, task, call, life)
        if self.happens(faults.repeat):
            self.after(self._random() * faults.max_delay_seconds, self._deliver, None, call, life)

    def _deliver(self, task: _Task | None, call: Call, life: int) -> None:
        """The queue executes a call, as it does whether or not somebody still listens.

        Connections end with the queue's process: nothing that was sent to the one before it
        reaches the one in its place.
        """
        if life != self.queue.num_wipes or self.now < self.queue_away_until:
            if task is not None:
                self._resume(task, None, _nobody_answers())
            return
        method, *arguments = call
        options = arguments.pop() if isinstance(arguments[-1], dict) else {}
        answer, error = None, None
        try:
            answer = getattr(self.queue, method)(*arguments, **options, now=self.now)
        except REFUSALS as refused:
            error = refused
        if self._tell is not None:
            who = "repeated" if task is None else task.name
            self.tell(f"{who}: {call} -> {error or answer}")
        if task is None:
            return
        if self.happens(self._faults.loss):
            self.tell(f"{task.name} does not hear of it")
            self.after(CALL_TIMEOUT_SECONDS, self._resume, task, None, _nobody_answers())
        else:
            self.after(self._delay() + self._pause(), self._resume, task, answer, error)


def _nobody_answers() -> QueueUnavailable:
    return QueueUnavailable("nobody answers")
