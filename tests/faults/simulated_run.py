"""A whole run in simulated time: learner, driver, samplers and reward workers around one queue.

Everything follows from the seed. What decides is the real thing (``QueueState``, ``DrawTable``,
``Ledger``); what is here only carries messages between them, and dies of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from learner.ledger import Ledger
from rewardtune.cluster.driver.draw_table import Draw, DrawTable
from rewardtune.transport.queue.job_queue import QueueLimits, QueueUnavailable, Result, Term
from rewardtune.transport.queue.queue_state import QueueState
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.term import StaleTerm
from tests.faults.event_world import Faults, Process, World
from tests.faults.simulated_worker import POLL_SECONDS, Scoring
from tests.faults.watched_queue import Violation, WatchedQueue, demand

LIMITS = QueueLimits(lease_seconds=1.0, max_deliveries=4)
LIMIT_SECONDS = 120.0
"""Simulated time in which every schedule must come to its end; faults stop long before."""
SEAL = RunSeal("a run", b"its secret")
_SCAN_SECONDS = 0.3
_NOTICE_SECONDS = 0.5
"""Until a death is noticed, and the process started again."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    ledger: dict[str, Any]
    consumed: dict[int, Result]
    """What this lineage has consumed, each ordinal once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One schedule that kept every promise."""

    num_events: int
    num_kills: int
    num_terms: int
    num_wipes: int
    num_redeliveries: int
    num_duplicates: int
    num_stale: int
    num_lies: int
    num_refused: int
    num_invalid: int
    num_redraws: int


class Run:
    """One schedule."""

    def __init__(
        self, seed: int, *, rules: type[QueueState], tell: Callable[[str], None] | None
    ) -> None:
        rng = random.Random(seed)
        roughness = rng.choice((0.02, 0.05, 0.1, 0.2))
        faults = Faults(
            loss=roughness * rng.random(),
            repeat=roughness * rng.random(),
            delay=roughness * rng.random(),
            kill=roughness * rng.random() / 2,
            pause=roughness * rng.random(),
            max_delay_seconds=4 * LIMITS.lease_seconds,
        )
        calm_at = rng.uniform(1.0, 6.0)
        self._rng = rng
        self._queue = WatchedQueue(LIMITS, rules)
        self._world = World(self._queue, rng, faults=faults, calm_at=calm_at, tell=tell)
        self._faults = faults

        self._micro_batch = rng.choice((1, 2))
        self._batch_size = self._micro_batch * rng.choice((1, 2))
        self._depth = rng.choice((0, 1, 1, 2))
        self._num_batches = rng.choice((2, 3, 4))
        num_ordinals = self._batch_size * self._num_batches
        poison = {o for o in range(num_ordinals) if rng.random() < 0.08}
        self._skipped = {b for b in range(self._num_batches) if rng.random() < 0.1}
        self._num_workers = rng.choice((1, 2, 3))
        self._num_samplers = rng.choice((1, 2))
        lie = rng.choice((0.0, 0.05, 0.3))

        self._term = -1
        self._num_outages = rng.choice((0, 0, 1, 2))
        self._checkpoints = [Checkpoint(Ledger(self._batch_size).to_state(), {})]
        self._table = DrawTable(
            batch_size=self._batch_size,
            micro_batch=self._micro_batch,
            num_batches=self._num_batches,
            drawn_with=lambda batch: max(0, batch - self._depth),
            depth=self._depth,
        )
        self._drawing_term = -1
        """The term that the driver places draws for; -1 before its learner has opened it."""
        self._num_drawing = 0
        self._num_workers_started = 0
        self._num_draws = 0
        self._scoring = Scoring(
            self._world,
            rng,
            poison=poison,
            lease_seconds=LIMITS.lease_seconds,
            drain=faults.kill,
            lie=lie,
        )
        self._is_finished = False

    def run(self) -> Outcome:
        """Raises:
        Violation: a promise was broken.
        """
        world = self._world
        for _ in range(self._num_outages):
            world.after(self._rng.uniform(0.2, 5.0), self._break_queue)
        self._start_learner()
        world.start("driver", self._driver(), on_end=_nothing)
        for _ in range(self._num_workers):
            self._start_worker()
        in_time = world.run(until=LIMIT_SECONDS, is_over=lambda: self._is_finished)
        demand(in_time, f"no end after {LIMIT_SECONDS:.0f} s: a batch has never closed")
        return self._close()

    def _close(self) -> Outcome:
        """The account at the end, by distinct ordinal."""
        last = self._checkpoints[-1]
        ledger = Ledger.from_state(last.ledger)
        num = self._batch_size * self._num_batches
        demand(sorted(last.consumed) == list(range(num)), "not every ordinal was consumed once")
        dead = [o for o, result in sorted(last.consumed.items()) if result.scored is None]
        skipped = [
            o
            for o in range(num)
            if o not in set(dead) and self._is_skipped(o // self._batch_size, last.consumed)
        ]
        demand(ledger.invalid == dead, f"invalid are {dead}, the ledger says {ledger.invalid}")
        demand(ledger.skipped == skipped, f"skipped are {skipped}, not {ledger.skipped}")
        demand(
            ledger.num_admitted == num == ledger.num_trained + len(dead) + len(skipped),
            "admitted is not trained + invalid + skipped",
        )
        demand(self._scoring.poison <= set(dead), "a job that nobody can score was trained on")
        self._queue.check_empty(now=self._world.now)
        return Outcome(
            num_events=self._world.num_events,
            num_kills=self._world.num_kills,
            num_terms=self._term + 1,
            num_wipes=self._queue.num_wipes,
            num_redeliveries=self._queue.num_redeliveries,
            num_duplicates=self._queue.num_duplicates,
            num_stale=self._queue.num_stale,
            num_lies=self._scoring.num_lies,
            num_refused=self._queue.num_refused,
            num_invalid=len(dead),
            num_redraws=self._table.num_redraws,
        )

    def _break_queue(self) -> None:
        """It goes away, and comes back as it was, or empty."""
        if self._world.is_calm():
            return
        is_wiped = self._rng.random() < 0.6
        self._world.tell(f"the queue goes away, to be {'empty' if is_wiped else 'as it was'}")
        self._world.queue_away_until = self._world.now + self._rng.random()
        if is_wiped:
            self._queue.wipe()

    # The learner.

    def _start_learner(self) -> None:
        self._term += 1
        term = self._term
        self._world.tell(f"term {term} is claimed")
        self._world.start(
            f"learner-{term}",
            self._learner(term),
            on_end=_nothing,
            on_death=lambda: self._learner_died(term),
        )
        if self._world.happens(4 * self._faults.kill):
            # It is thought dead and lives on: two learners, of which one must stop.
            self._world.after(self._rng.uniform(0.1, 3.0), self._learner_died, term)

    def _learner_died(self, term: int) -> None:
        if term == self._term and not self._is_finished:
            self._drawing_term = -1
            self._world.after(_NOTICE_SECONDS, self._restart_learner, term)

    def _restart_learner(self, term: int) -> None:
        if term == self._term and not self._is_finished:
            self._start_learner()

    def _learner(self, number: int) -> Process:
        checkpoint = self._checkpoints[-1]
        ledger = Ledger.from_state(_copied(checkpoint.ledger))
        consumed = dict(checkpoint.consumed)
        term = Term(number, b"spec", (self._depth + 1) * self._batch_size)
        try:
            yield from self._open(term, ledger)
            if number == self._term:
                self._drawing_term = number
                self._table.begin(version=ledger.num_batches)
            while ledger.num_batches < self._num_batches:
                batch = yield from self._collect(term, ledger)
                self._consume(ledger, consumed, batch)
                yield 0.02  # the update
                yield from self._told(term, ledger)
                is_last = ledger.num_batches == self._num_batches
                if is_last or self._rng.random() < 0.5:
                    if number < self._term:
                        return  # somebody else's run by now
                    self._checkpoints.append(Checkpoint(_copied(ledger.to_state()), dict(consumed)))
                    self._is_finished = is_last
                if number == self._drawing_term:
                    self._table.published(ledger.num_batches)
        except StaleTerm:
            self._world.tell(f"learner-{number} has been superseded")

    def _open(self, term: Term, ledger: Ledger) -> Process:
        frontier = ledger.num_batches * self._batch_size
        while True:
            try:
                yield ("open_term", term, {"frontier": frontier})
            except QueueUnavailable:
                yield POLL_SECONDS
            else:
                return

    def _collect(self, term: Term, ledger: Ledger) -> Any:
        ordinals = list(ledger.next_ordinals)
        found: dict[int, Result] = {}
        while True:
            missing = [o for o in ordinals if o not in found]
            try:
                come: dict[int, Result] = yield ("results", term.number, missing)
                for ordinal, result in come.items():
                    if _is_honest(result, term.number, ordinal):
                        found[ordinal] = result
                    else:
                        # Every other time the group is drawn again.
                        told = {"worker": result.worker, "keep_group": self._rng.random() < 0.5}
                        yield ("refuse", term.number, ordinal, told)
            except QueueUnavailable:
                yield from self._open(term, ledger)
            if len(found) == len(ordinals):
                return [found[o] for o in ordinals]
            yield POLL_SECONDS

    def _consume(self, ledger: Ledger, consumed: dict[int, Result], batch: list[Result]) -> None:
        ordinals = list(ledger.next_ordinals)
        for ordinal, result in zip(ordinals, batch, strict=True):
            demand(ordinal not in consumed, f"{ordinal} is consumed twice")
            consumed[ordinal] = result
            self._check_result(ordinal, result)
        ledger.consume(
            ordinals,
            invalid=[o for o, r in zip(ordinals, batch, strict=True) if r.scored is None],
            is_skipped=self._is_skipped(ledger.num_batches, consumed),
        )

    def _check_result(self, ordinal: int, result: Result) -> None:
        """That a score is one that somebody reached for this ordinal, and a failure is none."""
        if result.scored is not None:
            demand(result.dead is None, f"{ordinal} is scored and dead")
            is_known = result.scored in self._scoring.scores
            demand(is_known, f"nobody scored {ordinal} as {result.scored!r}")
        text = result.scored or result.dead or b""
        demand(text.startswith(b"group %d " % ordinal), f"{ordinal} was answered with {text!r}")

    def _is_skipped(self, batch: int, consumed: dict[int, Result]) -> bool:
        ordinals = range(batch * self._batch_size, (batch + 1) * self._batch_size)
        return batch in self._skipped or all(consumed[o].scored is None for o in ordinals)

    def _told(self, term: Term, ledger: Ledger) -> Process:
        """Have the frontier moved, before anything beyond it is drawn."""
        try:
            yield ("consume", term.number, {"before": ledger.next_ordinals.start})
        except QueueUnavailable:
            yield from self._open(term, ledger)

    # The driver and the samplers.

    def _driver(self) -> Process:
        while True:
            term = self._drawing_term
            while term >= 0 and self._num_drawing < self._num_samplers:
                draw = self._table.next()
                if draw is None:
                    break
                self._start_draw(draw, term)
            yield _SCAN_SECONDS * (0.5 + self._rng.random())
            ordinals = self._table.settled_ordinals()
            if term >= 0 and ordinals:
                try:
                    missing: list[int] = yield ("missing", term, ordinals)
                except (QueueUnavailable, StaleTerm):
                    continue
                if term == self._drawing_term:
                    self._table.reconcile(missing)

    def _start_draw(self, draw: Draw, term: int) -> None:
        self._num_drawing += 1
        self._num_draws += 1
        name = f"draw-{self._num_draws}"
        is_open = [True]

        def over(report: Callable[[Draw], None]) -> None:
            """The driver hears of one end of it: done, lost, or thought lost."""
            if is_open[0]:
                is_open[0] = False
                self._num_drawing -= 1
                if term == self._drawing_term:
                    report(draw)

        def ended(is_done: bool) -> None:
            over(self._table.done if is_done else self._table.lost)

        self._world.start(
            name,
            self._draw(draw, term, name, ended),
            on_end=_nothing,
            on_death=lambda: self._world.after(_NOTICE_SECONDS, ended, False),
        )
        if self._world.happens(self._faults.kill):
            # Thought dead while it draws: the same groups are drawn twice.
            self._world.after(0.05, ended, False)

    def _draw(self, draw: Draw, term: int, name: str, ended: Callable[[bool], None]) -> Process:
        yield 0.02 + 0.2 * self._rng.random()
        try:
            for ordinal in draw.ordinals:
                body = b"group %d of %s" % (ordinal, name.encode())
                yield ("put", term, ordinal, body, {"seal": SEAL.of_group(term, ordinal, body)})
        except (QueueUnavailable, StaleTerm):
            ended(False)
        else:
            ended(True)

    # Reward workers.

    def _start_worker(self) -> None:
        if self._is_finished:
            return
        self._num_workers_started += 1
        name = f"worker-{self._num_workers_started}"

        def again() -> None:
            self._world.after(_NOTICE_SECONDS, self._start_worker)

        self._world.start(name, self._scoring.work(name), on_end=again, on_death=again)


def _is_honest(result: Result, term: int, ordinal: int) -> bool:
    """What ``learner.acceptance`` asks, of the short texts that stand for groups here."""
    body = result.dead if result.scored is None else result.scored.partition(b" by ")[0]
    is_finite = b"NaN" not in (result.scored or b"")
    return is_finite and SEAL.is_of_group(result.seal, term, ordinal, body or b"")


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """As a checkpoint on disk: nothing that the learner does later reaches it."""
    return {name: list(v) if isinstance(v, list) else v for name, v in state.items()}


def _nothing() -> None:
    pass


def run_schedule(
    seed: int,
    *,
    rules: type[QueueState] = QueueState,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Play one schedule through.

    Args:
        rules: of the queue; a test hands in broken ones.
        tell: hears of every event.

    Raises:
        Violation: a promise was broken, or what decides raised what it never should.
    """
    try:
        return Run(seed, rules=rules, tell=tell).run()
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}") from error
