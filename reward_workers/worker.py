"""The reward worker: lease groups, have them scored, commit each result once.

One thread does everything: it talks to the queue and watches the scorers, and neither waits for
the other longer than a fraction of a second. Whatever reward code does happens in children.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from reward_workers.config import RewardWorkerConfig
from reward_workers.leases import Leases
from reward_workers.metrics import CORE_SECONDS, HUMAN_WAITING, SCORE_SECONDS, STATE, Metrics
from reward_workers.pool import Done, Event, Fit, Refused, ScorerPool, Untouched
from reward_workers.scorer_wire import Scored, Start, Started
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.transport.queue.job_queue import (
    JobQueue,
    QueueRefused,
    QueueUnavailable,
    Term,
    WorkerRecord,
)
from rewardtune.transport.security.config import PLAIN, SecurityConfig
from rewardtune.transport.telemetry.meter import NoTelemetry

DRAINED = 0
"""Exit code: it was asked to stop, and did."""
QUEUE_REFUSED = 2
"""Exit code: the queue will not serve this worker; ``message`` says why."""

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.05, 2.0
RECHECK_SECONDS = 30.0
"""A refused worker looks again so often: a data set may be on its way, or a disk come back."""

# While nothing is scored the worker waits inside the queue, and for so long hears nothing else.
_BLOCK_SECONDS = 0.25
# While something is scored it asks for more now and then, the less often the longer there is none.
_FIRST_ASK_SECONDS, _MAX_ASK_SECONDS = 0.005, 0.1
# Once the scorers are done, for a queue that cannot be reached.
_FLUSH_SECONDS = 5.0
_TTL_HEARTBEATS = 5

_LOG = logging.getLogger("rewardtune.reward_worker")


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    REFUSED = "refused"
    """What it would score is not what the run asks for: it leases nothing."""
    DRAINING = "draining"


class RewardWorker:
    """Scores for one run until it is drained. ``run`` and ``drain`` may be of different threads."""

    def __init__(
        self,
        queue: JobQueue,
        config: RewardWorkerConfig,
        *,
        data_path: Path,
        name: str,
        artefacts_path: Path | None = None,
        security: SecurityConfig = PLAIN,
        metrics: Metrics | None = None,
        metrics_address: str = "",
        on_state: Callable[[WorkerState, str], None] = lambda state, message: None,
    ) -> None:
        """Start nothing yet.

        Args:
            data_path: folder of the run's training data.
            name: unique to this process start.
            artefacts_path: folder in which files that the run's options name are looked for first.
            security: of the run's reward servers, for the scorers.
            metrics_address: host:port to be listed with.
            on_state: told of every change, with the message, by the thread of ``run``.
        """
        self._queue = queue
        self._config = config
        self._data_path = data_path
        self._artefacts_path = artefacts_path
        self._security = security
        self._name = name
        self._metrics: Metrics = metrics or NoTelemetry()
        self._metrics_address = metrics_address
        self._on_state = on_state

        self.state = WorkerState.STARTING
        self.message = "no learner has opened a term yet"
        """Why it is not ready; empty if it is."""
        self._term: Term | None = None
        self._start: Start | None = None
        self._started = Started()
        self._leases = Leases(
            queue, worker=name, lease_seconds=config.lease_seconds, metrics=self._metrics
        )
        self._pool = ScorerPool(
            num_scorers=config.num_scorers,
            threads=config.threads,
            startup_seconds=config.startup_seconds,
            max_groups_per_scorer=config.max_groups_per_scorer,
            metrics=self._metrics,
        )
        self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS
        self._ask_at, self._ask_seconds = 0.0, _FIRST_ASK_SECONDS
        self._heartbeat_at = 0.0
        self._recheck_at = math.inf
        self._num_groups, self._core_seconds = 0, 0.0
        self._num_with_people = 0
        self._must_drain = False
        self._drain_until: float | None = None
        self._ears, self._bell = socket.socketpair()
        self._ears.setblocking(False)
        self._bell.setblocking(False)
        self._pool.watch(self._ears.fileno())

    @property
    def scorer_pids(self) -> list[int]:
        """Processes of the scorers there are now."""
        return self._pool.pids

    def drain(self) -> None:
        """Finish what is being scored, give back the rest, and let ``run`` return.

        From any thread, or a signal handler.
        """
        self._must_drain = True
        with contextlib.suppress(OSError):  # it is awake already, or over
            self._bell.send(b"!")

    def run(self) -> int:
        """Work; returns an exit code. To be called once.

        Scorers die with the thread that calls this.
        """
        self._enter(WorkerState.STARTING, self.message)
        try:
            while not self._is_over():
                self._turn()
            if self._leases.num_unreported:
                _LOG.warning("%d results are left unreported", self._leases.num_unreported)
            self._queue.deregister(self._name)
        except QueueUnavailable:
            pass  # it was drained without a queue: the listing ends by itself
        except QueueRefused as error:
            self._enter(WorkerState.REFUSED, str(error))
            return QUEUE_REFUSED
        finally:
            self._pool.close()
            self._ears.close()
            self._bell.close()
        return DRAINED

    def _turn(self) -> None:
        for event in self._pool.poll(self._idle_seconds()):
            self._take(event)
        with contextlib.suppress(BlockingIOError):
            self._ears.recv(64)
        self._follow_scorers()
        if self._must_drain:
            self._go_on_draining()
        # Scorers first: they work while the queue is being told of what they have done.
        self._dispatch()
        self._show_waiting()
        self._talk()
        self._dispatch()

    def _idle_seconds(self) -> float:
        """How long there is nothing to do unless a scorer speaks."""
        due = [self._recheck_at]
        if self._retry_at > time.monotonic():
            due.append(self._retry_at)
        else:
            due += [self._heartbeat_at, self._leases.next_renewal]
            if self._num_wanted() > 0:
                due.append(self._ask_at)
        if self._drain_until is not None and self._leases.num_running:
            due.append(self._drain_until)
        return max(0.0, min(due) - time.monotonic())

    # --- scorers ---------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Fit(started):
                self._started = started
                # Unless another scorer was refused in the same moment.
                if self._has_scorers and self.state is not WorkerState.DRAINING:
                    self._enter(WorkerState.READY, "")
            case Refused(started):
                self._started = started
                self._refuse(started.refusal)
            case Done(job, outcome, busy_seconds):
                self._ask_at, self._ask_seconds = 0.0, _FIRST_ASK_SECONDS
                core_seconds = busy_seconds * self._config.threads
                self._metrics.count(CORE_SECONDS, core_seconds)
                self._num_groups += 1
                self._core_seconds += core_seconds
                if isinstance(outcome, Scored):
                    self._metrics.observe(SCORE_SECONDS, outcome.load_seconds, phase="load")
                    self._metrics.observe(SCORE_SECONDS, outcome.score_seconds, phase="score")
                    self._leases.settle(job, outcome.scored)
                else:
                    self._leases.settle(job, outcome)
            case Untouched(job, message):
                self._leases.settle(job, None)
                self._refuse(message)

    def _follow_scorers(self) -> None:
        if self._recheck_at <= time.monotonic() and self._start is not None:
            self._recheck_at = math.inf
            self._pool.begin(self._start)
        if not self._has_scorers:
            # Whoever has a scorer can have them at once.
            self._leases.give_back_waiting()
            trouble = self._pool.trouble
            if trouble and trouble != self.message and self.state is not WorkerState.DRAINING:
                self._enter(WorkerState.STARTING, trouble)

    @property
    def _has_scorers(self) -> bool:
        return self._pool.num_ready + self._pool.num_busy > 0

    @property
    def _is_behind(self) -> bool:
        """A job that was leased is of a term that this worker has not read yet."""
        return self._term is not None and self._leases.newest_term > self._term.number

    def _dispatch(self) -> None:
        if self._is_behind:
            return
        while self._leases.num_waiting and self._pool.num_ready:
            self._pool.submit(self._leases.begin())

    @property
    def _waiting_for_people(self) -> str:
        return (
            f"waiting for people to score ({self._num_with_people})"
            if self._num_with_people
            else ""
        )

    def _show_waiting(self) -> None:
        """Tell how many groups people have, as soon as that changes."""
        num_with_people = self._pool.num_busy if self._started.is_human else 0
        if num_with_people != self._num_with_people:
            self._num_with_people = num_with_people
            self._metrics.set(HUMAN_WAITING, num_with_people)
            self._heartbeat_at = 0.0

    def _refuse(self, message: str, *, is_final: bool = False) -> None:
        """Lease no more of this spec; look again after a while unless nothing can change."""
        for job in self._pool.clear():
            self._leases.settle(job, None)
        self._recheck_at = math.inf if is_final else time.monotonic() + RECHECK_SECONDS
        if self.state is not WorkerState.DRAINING:
            self._enter(WorkerState.REFUSED, message)

    def _enter(self, state: WorkerState, message: str) -> None:
        if message and message != self.message:
            _LOG.warning("%s: %s", state.value, message)
        elif state is not self.state:
            _LOG.info("%s", state.value)
        self.state, self.message = state, message
        self._heartbeat_at = 0.0
        for each in WorkerState:
            self._metrics.set(STATE, float(each is state), state=each.value)
        self._on_state(state, message)

    # --- the queue -------------------------------------------------------------------------------

    def _talk(self) -> None:
        if self._retry_at > time.monotonic():
            return
        try:
            self._leases.flush()
            if self._heartbeat_at <= time.monotonic():
                self._beat()
            if self._is_behind:
                self._follow_term()
            self._leases.renew_due()
            self._ask()
        except QueueUnavailable as error:
            if self._retry_seconds == FIRST_RETRY_SECONDS:
                _LOG.warning("the queue is away: %s", error)
            self._retry_at = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
        else:
            if self._retry_seconds > FIRST_RETRY_SECONDS:
                _LOG.info("the queue is back")
            self._retry_at, self._retry_seconds = 0.0, FIRST_RETRY_SECONDS

    def _beat(self) -> None:
        self._follow_term()
        record = WorkerRecord(
            worker=self._name,
            reward_digest=self._started.reward_digest,
            dataset_digest=self._started.dataset_digest,
            state=self.state.value,
            num_scorers=self._config.num_scorers,
            busy=self._pool.num_busy,
            metrics_address=self._metrics_address,
            message=self.message or self._waiting_for_people,
            num_groups=self._num_groups,
            core_seconds=self._core_seconds,
        )
        ttl_seconds = _TTL_HEARTBEATS * self._config.heartbeat_seconds
        if self._queue.heartbeat(record, ttl_seconds=ttl_seconds):
            self._must_drain = True
        # A worker that waits for its run to begin looks out for it.
        pause_seconds = self._config.heartbeat_seconds if self._term else _BLOCK_SECONDS
        self._heartbeat_at = time.monotonic() + pause_seconds

    def _follow_term(self) -> None:
        term = self._queue.term()
        if term is None or (self._term is not None and term.number <= self._term.number):
            return
        is_same_work = self._term is not None and term.spec == self._term.spec
        self._term = term
        self._leases.abandon_waiting(before_term=term.number)
        if not is_same_work and self.state is not WorkerState.DRAINING:
            self._begin(term.spec)

    def _begin(self, spec_bytes: bytes) -> None:
        """Start scorers of another spec; what the old ones were at is of a term that is over."""
        for job in self._pool.clear():
            self._leases.settle(job, None)
        self._started = Started()
        self._start = None
        self._recheck_at = math.inf
        try:
            spec = ScoringSpec.from_bytes(spec_bytes)
        except ValueError as error:
            self._refuse(str(error), is_final=True)
            return
        settings = ScorerSettings(threads=self._config.threads)
        if spec.scorer != settings:
            self._refuse(
                f"scorers here run with {_listed(settings)}, those of run '{spec.run}' with "
                f"{_listed(spec.scorer)}: start this worker with --threads {spec.scorer.threads}",
                is_final=True,
            )
            return
        self._enter(WorkerState.STARTING, "")
        self._start = Start(
            spec_bytes,
            str(self._data_path),
            self._config.deadline_seconds,
            str(self._artefacts_path or ""),
            self._security,
        )
        self._pool.begin(self._start)

    def _num_wanted(self) -> int:
        """Jobs to lease, by the scorers that are free."""
        if self.state is not WorkerState.READY or not self._has_scorers:
            return 0
        return self._pool.num_ready + self._config.prefetch - self._leases.num_waiting

    def _ask(self) -> None:
        num_wanted = self._num_wanted()
        if num_wanted <= 0 or self._ask_at > time.monotonic():
            return
        is_idle = self._leases.num_running == 0 and not self._must_drain
        num_leased = self._leases.lease(
            reward_digest=self._started.reward_digest,
            max_jobs=num_wanted,
            timeout_seconds=_BLOCK_SECONDS if is_idle else 0.0,
        )
        if num_leased or is_idle:
            self._ask_at, self._ask_seconds = 0.0, _FIRST_ASK_SECONDS
        else:
            self._ask_at = time.monotonic() + self._ask_seconds
            self._ask_seconds = min(2 * self._ask_seconds, _MAX_ASK_SECONDS)
        if self._is_behind:
            self._follow_term()

    # --- the end ---------------------------------------------------------------------------------

    def _go_on_draining(self) -> None:
        now = time.monotonic()
        if self._drain_until is None:
            self._drain_until = now + self._config.drain_seconds
            self._enter(WorkerState.DRAINING, "it was asked to stop")
            self._leases.give_back_waiting()
        if self._leases.num_running == 0 or now >= self._drain_until:
            for job in self._pool.clear():
                self._leases.settle(job, None)
            self._drain_until = min(self._drain_until, now)

    def _is_over(self) -> bool:
        if self._drain_until is None or self._leases.num_running:
            return False
        given_up = time.monotonic() >= self._drain_until + _FLUSH_SECONDS
        return self._leases.num_unreported == 0 or given_up


def _listed(settings: ScorerSettings) -> str:
    return f"{settings.threads} threads on {settings.device}"
