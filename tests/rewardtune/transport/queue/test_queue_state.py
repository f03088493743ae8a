"""The queue's rules in any order of calls, and what only shows with a clock in one's hand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardtune.transport.queue.job_queue import (
    Failure,
    FailureKind,
    Job,
    QueueLimits,
    QueueUnavailable,
    Term,
    WorkerRecord,
)
from rewardtune.transport.queue.queue_state import MAX_DEAD_LETTERS, QueueState
from rewardtune.transport.queue.worker_registry import DRAIN_SECONDS, WorkerRegistry
from tests.faults.watched_queue import WatchedQueue

CAPACITY = 6
LIMITS = QueueLimits(lease_seconds=1.0, max_deliveries=2)


def opened(*, limits: QueueLimits = LIMITS, capacity: int = CAPACITY) -> QueueState:
    state = QueueState(limits, instance="i-")
    state.open_term(Term(0, b"", capacity), frontier=0)
    return state


def lease(state: QueueState, *, now: float, worker: str = "a", max_jobs: int = 1) -> list[Job]:
    return state.lease(worker, reward_digest="d", max_jobs=max_jobs, now=now)


OFTEN = ["put", "lease", "renew", "commit", "fail", "give_back"]
SELDOM = ["consume", "reopen", "next_term", "wipe", "missing", "results"]
CALLS = st.lists(
    st.tuples(
        st.sampled_from(OFTEN * 3 + SELDOM),
        st.integers(0, 2 * CAPACITY),
        st.sampled_from("ab"),
        st.sampled_from([0.0, 0.1, 0.4, 1.0]),
    ),
    max_size=120,
)


class Anyone:
    """Learner, sampler and workers in one, who call in any order; each answer is checked."""

    def __init__(self) -> None:
        self.queue = WatchedQueue(LIMITS, QueueState)
        self.term = 0
        self.frontier = 0
        self.jobs: list[Job] = []
        self.reopen(0.0)

    def reopen(self, now: float) -> None:
        self.queue.open_term(Term(self.term, b"", CAPACITY), frontier=self.frontier, now=now)

    def call(self, call: str, number: int, worker: str, now: float) -> None:
        queue, term = self.queue, self.term
        unknown = Job(term, number, b"", 1, "unheard of")
        job = self.jobs[number % len(self.jobs)] if self.jobs else unknown
        body = b"%d at %f" % (number, now)
        match call:
            case "put":
                queue.put(term, min(number, self.frontier + CAPACITY - 1), body, now=now)
            case "lease":
                self.jobs += queue.lease(worker, max_jobs=1 + number % 3, now=now)
            case "commit":
                queue.commit(job, worker, body, now=now)
            case "fail":
                failure = Failure(FailureKind.EXCEPTION, "boom" if number % 2 else "bang")
                queue.fail(job, worker, failure, now=now)
            case "give_back":
                queue.give_back(job, worker, now=now)
            case "renew":
                queue.renew(job, worker, now=now)
            case "missing":
                queue.missing(term, range(number), now=now)
            case "results":
                queue.results(term, range(number), now=now)
            case "consume":
                self.frontier = max(self.frontier, number)
                queue.consume(term, before=number, now=now)
            case "reopen":
                self.reopen(now)
            case "next_term":
                self.term, self.frontier = term + 1, number
                self.reopen(now)
            case "wipe":
                queue.wipe()
                self.reopen(now)


@given(CALLS)
def test_any_order_of_calls_is_answered_as_the_plain_account_says(
    calls: list[tuple[str, int, str, float]],
) -> None:
    anyone, now = Anyone(), 0.0
    for call, number, worker, seconds in calls:
        now += seconds
        anyone.call(call, number, worker, now)


@given(
    st.lists(
        st.tuples(st.sampled_from(["lease", "give_back", "fail", "pass"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_jobs_that_came_back_are_leased_in_the_order_of_puts_then_new_ones(
    calls: list[tuple[str, int]],
) -> None:
    limits = QueueLimits(lease_seconds=1.0, max_deliveries=99, max_crashes=99, same_exception=99)
    state, now = opened(limits=limits, capacity=10), 0.0
    waiting = list(range(10))  # never leased
    returned: set[int] = set()
    held: dict[int, tuple[Job, float]] = {}
    for ordinal in waiting:
        state.put(0, ordinal, b"", now=now)
    for call, number in calls:
        if call == "pass":
            now += 0.3
            for ordinal in [o for o, (_, until) in held.items() if until <= now]:
                returned.add(ordinal)
                del held[ordinal]
        elif call == "lease":
            (expected, *_) = [*sorted(returned), *waiting, None]
            found = lease(state, now=now)
            assert [job.ordinal for job in found] == ([] if expected is None else [expected])
            for job in found:
                returned.discard(job.ordinal)
                waiting = [o for o in waiting if o != job.ordinal]
                held[job.ordinal] = (job, now + 1.0)
        elif held:
            ordinal = sorted(held)[number % len(held)]
            job, _ = held.pop(ordinal)
            if call == "give_back":
                state.give_back(job, "a")
            else:
                state.fail(job, "a", Failure(FailureKind.CRASH, ""))
            returned.add(ordinal)
        stats = state.stats(now=now)
        assert (stats.backlog, stats.leased) == (len(waiting) + len(returned), len(held))


def test_a_lease_ends_exactly_when_its_time_is_over() -> None:
    state = opened()
    state.put(0, 0, b"", now=0.0)
    (job,) = lease(state, now=5.0)
    assert state.next_expiry() == 6.0
    assert lease(state, now=5.999, worker="b") == []
    assert state.renew(job, "a", now=5.999)
    assert lease(state, now=6.998, worker="b") == []
    assert len(lease(state, now=6.999, worker="b")) == 1


def test_no_lease_ends_before_the_next_expiry_that_is_named() -> None:
    state = opened()
    assert state.next_expiry() is None
    for ordinal in range(3):
        state.put(0, ordinal, b"", now=0.0)
    first, second = lease(state, now=1.0)[0], lease(state, now=1.5)[0]
    state.renew(first, "a", now=1.8)
    while (expiry := state.next_expiry()) is not None and expiry < 2.8:
        assert state.stats(now=expiry - 1e-9).leased == 3 - state.stats(now=0).backlog
        lease(state, now=expiry, max_jobs=0)
    assert state.stats(now=2.5).leased == 1
    assert not [job for job in lease(state, now=2.5, worker="b") if job.ordinal != second.ordinal]


def test_the_age_is_that_of_the_oldest_put_whose_result_is_not_there() -> None:
    state = opened()
    state.put(0, 3, b"", now=1.0)
    state.put(0, 0, b"", now=4.0)
    assert state.stats(now=10.0).oldest_seconds == 9.0
    (job,) = lease(state, now=10.0)
    assert state.stats(now=10.0).oldest_seconds == 9.0
    state.commit(job, b"scored")
    assert state.stats(now=10.0).oldest_seconds == 6.0


def test_only_so_many_dead_letters_are_kept_and_of_the_last() -> None:
    state = opened(limits=replace(LIMITS, max_crashes=1), capacity=10)
    for ordinal in range(MAX_DEAD_LETTERS + 5):
        state.put(0, ordinal, b"", now=0.0)
        state.fail(lease(state, now=0.0)[0], "a", Failure(FailureKind.CRASH, ""))
        state.consume(0, before=ordinal + 1)
    letters = state.dead_letters()
    assert [letters[0].ordinal, letters[-1].ordinal] == [5, MAX_DEAD_LETTERS + 4]
    assert len(letters) == MAX_DEAD_LETTERS
    assert state.stats(now=0.0).dead == MAX_DEAD_LETTERS + 5


def test_a_long_run_leaves_nothing_behind() -> None:
    """Whatever way jobs go: committed at once, renewed, given back, expired, consumed unread."""
    state = opened(capacity=10)

    def play(start: int) -> int:
        for ordinal in range(start, start + 1000):
            now = ordinal * 0.1
            state.put(0, ordinal, b"x" * 100, now=now)
            jobs = lease(state, now=now, max_jobs=2)
            for job in jobs:
                state.renew(job, "a", now=now)
                if job.ordinal % 3 == 0:
                    state.commit(job, b"y" * 100)
                elif job.ordinal % 3 == 1:
                    state.give_back(job, "a")
            state.consume(0, before=ordinal - 5)
        return len(pickle.dumps(state))

    sizes = [play(1000 * part) for part in range(6)]
    assert max(sizes[1:]) < 1.2 * sizes[0]


def test_leases_of_a_queue_and_of_its_successor_have_different_names() -> None:
    names = set()
    for instance in ("x-", "y-"):
        state = QueueState(LIMITS, instance=instance)
        state.open_term(Term(0, b"", CAPACITY), frontier=0)
        state.put(0, 0, b"", now=0.0)
        names.add(lease(state, now=0.0)[0].lease)
    assert len(names) == 2


def test_every_result_and_every_term_rings_the_bell_once() -> None:
    state = opened(limits=replace(LIMITS, max_crashes=1))
    for ordinal in range(3):
        state.put(0, ordinal, b"", now=0.0)
    committed, failed, lost = lease(state, now=0.0, max_jobs=3)
    rings = [state.num_rings]
    state.commit(committed, b"scored")
    rings.append(state.num_rings)
    state.commit(committed, b"scored")
    rings.append(state.num_rings)
    state.fail(failed, "a", Failure(FailureKind.CRASH, ""))
    rings.append(state.num_rings)
    lease(state, now=1.0)
    lease(state, now=2.0)
    rings.append(state.num_rings)
    state.open_term(Term(1, b"", CAPACITY), frontier=0)
    rings.append(state.num_rings)
    assert [after - before for before, after in pairwise(rings)] == [1, 0, 1, 1, 1]
    assert state.commit(lost, b"scored") == "stale"


def test_a_queue_without_a_term_says_what_will_help() -> None:
    with pytest.raises(QueueUnavailable, match="the learner has yet to open it"):
        QueueState(LIMITS).check_term(0)


RECORD = WorkerRecord("a", "d", "e", "ready", 1)


def test_a_worker_is_listed_until_its_last_heartbeat_is_too_old() -> None:
    registry = WorkerRegistry()
    registry.heartbeat(RECORD, ttl_seconds=10, now=0.0)
    registry.heartbeat(replace(RECORD, worker="b"), ttl_seconds=3, now=0.0)
    assert [r.worker for r in registry.workers(now=2.9)] == ["a", "b"]
    assert [r.worker for r in registry.workers(now=3.0)] == ["a"]
    registry.heartbeat(RECORD, ttl_seconds=10, now=9.0)
    assert registry.workers(now=18.9) == [RECORD]
    assert registry.workers(now=19.0) == []


def test_a_request_to_drain_is_forgotten_only_when_nobody_can_be_waiting_for_it() -> None:
    registry = WorkerRegistry()
    registry.request_drain("a", now=0.0)
    registry.request_drain("b", now=DRAIN_SECONDS - 1)
    assert registry.heartbeat(RECORD, ttl_seconds=10, now=DRAIN_SECONDS - 1)
    registry.request_drain("c", now=DRAIN_SECONDS)
    assert not registry.heartbeat(RECORD, ttl_seconds=10, now=DRAIN_SECONDS)
    assert registry.heartbeat(replace(RECORD, worker="b"), ttl_seconds=10, now=DRAIN_SECONDS)
