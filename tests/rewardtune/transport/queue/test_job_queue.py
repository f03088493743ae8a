"""What every job queue promises, rule by rule, on every implementation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    FailOutcome,
    Failure,
    FailureKind,
    Job,
    JobQueue,
    QueueFull,
    QueueRefused,
    QueueUnavailable,
    Result,
    Term,
    WorkerRecord,
)
from rewardtune.transport.term import StaleTerm
from tests.rewardtune.transport.conftest import LONG, QueueUnderTest

CAPACITY = 8
TERM = Term(number=3, spec=b"spec \x00\xff", capacity=CAPACITY)
NEXT_TERM = replace(TERM, number=4)
SOON_SECONDS = 15.0
"""Longer than any busy machine needs; whoever is asleep has 60."""
RECORD = WorkerRecord(
    worker="a",
    reward_digest="d",
    dataset_digest="e",
    state="ready",
    num_scorers=2,
    busy=1,
    metrics_address="127.0.0.1:9100",
    message="groß",
    num_groups=7,
    core_seconds=1.25,
)


def body(ordinal: int) -> bytes:
    return b"group %d" % ordinal


def opened(queue: JobQueue, num_jobs: int, *, frontier: int = 0) -> JobQueue:
    queue.open_term(TERM, frontier=frontier)
    for ordinal in range(frontier, frontier + num_jobs):
        assert queue.put(TERM.number, ordinal, body(ordinal))
    return queue


def lease(queue: JobQueue, worker: str = "a", *, max_jobs: int = 1) -> list[Job]:
    return queue.lease(worker, reward_digest="d", max_jobs=max_jobs, timeout_seconds=0)


def leased(queue: JobQueue, worker: str = "a") -> Job:
    (job,) = lease(queue, worker)
    return job


def ordinals(jobs: Sequence[Job]) -> list[int]:
    return [job.ordinal for job in jobs]


def failure(message: str = "", kind: FailureKind = FailureKind.EXCEPTION) -> Failure:
    return Failure(kind, message, traceback="line 1\nline 2")


def taken_over(expiring: QueueUnderTest, job: Job, worker: str = "b") -> Job:
    """The same job, after its lease has passed on."""
    expiring.expire_leases()
    again = leased(expiring.queue, worker)
    assert again.ordinal == job.ordinal
    return again


# Put.


def test_put_again_changes_nothing_whatever_became_of_the_job(queue: JobQueue) -> None:
    opened(queue, 5)
    queue.consume(3, before=1)
    scored, killed, _ = lease(queue, max_jobs=3)
    queue.commit(scored, "a", b"scored")
    for _ in range(2):
        outcome = queue.fail(killed, "a", failure("boom"))
        if outcome is FailOutcome.RETRY:
            (killed,) = lease(queue)
    before = queue.stats()
    assert (before.results, before.leased, before.backlog) == (2, 1, 1)
    for ordinal in range(5):
        assert not queue.put(3, ordinal, b"another group")
    assert replace(queue.stats(), oldest_seconds=0) == replace(before, oldest_seconds=0)
    assert queue.results(3, range(5)) == {1: Result(scored=b"scored"), 2: Result(dead=body(2))}
    assert leased(queue).body == body(4)


def test_a_put_beyond_the_capacity_raises_and_adds_nothing(queue: JobQueue) -> None:
    opened(queue, CAPACITY)
    with pytest.raises(QueueFull, match=r"ordinal 8 .* room for 8"):
        queue.put(3, CAPACITY, b"group")
    assert queue.stats().backlog == CAPACITY
    queue.consume(3, before=1)
    assert queue.put(3, CAPACITY, b"group")
    with pytest.raises(QueueFull, match="ordinal 9"):
        queue.put(3, CAPACITY + 1, b"group")


# Terms.


def calls_with_a_term(queue: JobQueue, term: int) -> list[Callable[[], object]]:
    return [
        lambda: queue.put(term, 0, b"group"),
        lambda: queue.missing(term, [0]),
        lambda: queue.results(term, [0]),
        lambda: queue.wait(term, timeout_seconds=60),
        lambda: queue.consume(term, before=1),
    ]


def calls_with_a_job(queue: JobQueue, job: Job) -> list[Callable[[], object]]:
    return [
        lambda: queue.commit(job, "a", b"scored"),
        lambda: queue.renew(job, "a"),
        lambda: queue.fail(job, "a", failure()),
        lambda: queue.give_back(job, "a"),
    ]


def test_a_queue_that_knows_no_term_is_unavailable_and_has_no_jobs(queue: JobQueue) -> None:
    job = Job(term=3, ordinal=0, body=b"group", delivery=1, lease="1")
    for call in [*calls_with_a_term(queue, 3), *calls_with_a_job(queue, job)]:
        with pytest.raises(QueueUnavailable, match="knows no term"):
            call()
    assert queue.term() is None
    assert queue.lease("a", reward_digest="d", max_jobs=1, timeout_seconds=0.05) == []
    assert queue.dead_letters() == []
    stats = queue.stats()
    assert stats.term == -1
    numbers = (stats.frontier, stats.backlog, stats.leased, stats.results, stats.oldest_seconds)
    assert numbers == (0, 0, 0, 0, 0)


def test_a_worker_that_came_before_the_learner_waits_for_its_first_job(queue: JobQueue) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.lease, "a", reward_digest="d", max_jobs=1, timeout_seconds=60.0)
        opened(queue, 1)
        assert ordinals(waiting.result(SOON_SECONDS)) == [0]


def test_the_term_says_what_workers_need(queue: JobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    assert queue.term() == TERM
    queue.open_term(NEXT_TERM, frontier=0)
    assert queue.term() == NEXT_TERM


def test_a_term_opened_again_keeps_what_is_there(queue: JobQueue) -> None:
    opened(queue, 4)
    scored, held = lease(queue, max_jobs=2)
    queue.commit(scored, "a", b"scored")
    queue.open_term(TERM, frontier=0)
    assert queue.results(3, range(4)) == {0: Result(scored=b"scored")}
    assert queue.missing(3, range(6)) == [4, 5]
    assert queue.renew(held, "a")
    assert ordinals(lease(queue, max_jobs=9)) == [2, 3]


def test_a_term_opened_again_moves_the_frontier_forward_only(queue: JobQueue) -> None:
    opened(queue, 4, frontier=2)
    queue.open_term(TERM, frontier=4)
    assert (queue.stats().frontier, queue.stats().backlog) == (4, 2)
    queue.open_term(TERM, frontier=0)
    assert (queue.stats().frontier, queue.stats().backlog) == (4, 2)
    assert not queue.put(3, 3, b"group")


def test_a_term_begins_at_its_frontier(queue: JobQueue) -> None:
    queue.open_term(TERM, frontier=4)
    assert queue.missing(3, [3, 4]) == [4]
    assert not queue.put(3, 3, b"group")
    assert queue.put(3, 4 + CAPACITY - 1, b"group")
    with pytest.raises(QueueFull):
        queue.put(3, 4 + CAPACITY, b"group")


def test_another_runs_queue_is_refused(queue: JobQueue) -> None:
    opened(queue, 1)
    with pytest.raises(QueueRefused, match="queue of another run") as refused:
        queue.open_term(replace(TERM, spec=b"other"), frontier=0)
    assert "\n" not in str(refused.value)
    assert queue.term() == TERM
    assert queue.stats().backlog == 1


def test_a_higher_term_forgets_everything_of_the_older_one(queue: JobQueue) -> None:
    opened(queue, 5, frontier=2)
    scored, dead = lease(queue, max_jobs=2)
    queue.commit(scored, "a", b"scored")
    queue.fail(dead, "a", failure("boom"))
    queue.fail(leased(queue), "a", failure("boom"))
    leased(queue)
    assert len(queue.dead_letters()) == 1
    queue.open_term(NEXT_TERM, frontier=0)
    assert lease(queue, max_jobs=9) == []
    assert queue.missing(4, range(9)) == list(range(9))
    assert queue.results(4, range(9)) == {}
    assert queue.dead_letters() == []
    stats = queue.stats()
    assert (stats.term, stats.frontier, stats.backlog, stats.leased, stats.results) == (
        4,
        0,
        0,
        0,
        0,
    )
    assert (stats.dead, stats.redeliveries, sum(stats.failures.values())) == (0, 0, 0)
    assert queue.put(4, 3, b"drawn anew")
    assert leased(queue).body == b"drawn anew"


def test_whoever_names_an_older_term_is_stopped(queue: JobQueue) -> None:
    opened(queue, 2)
    held = leased(queue)
    queue.open_term(NEXT_TERM, frontier=0)
    queue.put(4, 0, body(0))
    calls: list[Callable[[], object]] = [
        *calls_with_a_term(queue, 3),
        lambda: queue.open_term(TERM, frontier=0),
    ]
    for call in calls:
        with pytest.raises(StaleTerm, match="term 3 .* over"):
            call()
    assert queue.commit(held, "a", b"scored") is CommitOutcome.STALE
    assert not queue.renew(held, "a")
    assert queue.fail(held, "a", failure()) is FailOutcome.STALE
    queue.give_back(held, "a")
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results, stats.stale_commits) == (1, 0, 0, 1)
    assert stats.failures[FailureKind.EXCEPTION] == 0


def test_a_zombie_that_waits_is_stopped_too(queue: JobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    quiet(queue)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waited_out, queue)
        queue.open_term(NEXT_TERM, frontier=0)
        with pytest.raises(StaleTerm):
            waiting.result(SOON_SECONDS)


def waited_out(queue: JobQueue) -> None:
    """As a learner does: wait again and again until something is wrong."""
    for _ in range(100):
        queue.wait(3, timeout_seconds=60)


def test_a_term_that_the_queue_has_not_heard_of_is_not_available_yet(queue: JobQueue) -> None:
    opened(queue, 1)
    newer = replace(leased(queue), term=4)
    for call in [*calls_with_a_term(queue, 4), *calls_with_a_job(queue, newer)]:
        with pytest.raises(QueueUnavailable, match="term 3"):
            call()


# Leases.


def test_jobs_are_leased_in_the_order_of_their_puts_once_each(queue: JobQueue) -> None:
    queue.open_term(TERM, frontier=0)
    for ordinal in (4, 5, 0, 1):
        queue.put(3, ordinal, body(ordinal))
    first = lease(queue, "a", max_jobs=3)
    assert ordinals(first) == [4, 5, 0]
    assert [job.body for job in first] == [body(4), body(5), body(0)]
    assert {(job.term, job.delivery) for job in first} == {(3, 1)}
    assert ordinals(lease(queue, "b", max_jobs=3)) == [1]
    assert lease(queue, "b", max_jobs=3) == []


def test_what_came_back_is_leased_first_in_the_order_of_its_puts(queue: JobQueue) -> None:
    opened(queue, 5)
    jobs = lease(queue, max_jobs=3)
    for job in reversed(jobs):
        queue.give_back(job, "a")
    assert ordinals(lease(queue, max_jobs=4)) == [0, 1, 2, 3]


def test_an_expired_lease_goes_to_the_next_who_asks_before_new_jobs(
    expiring: QueueUnderTest,
) -> None:
    queue = opened(expiring.queue, 3)
    first = lease(queue, "a", max_jobs=2)
    expiring.expire_leases()
    again = lease(queue, "b", max_jobs=3)
    assert [(job.ordinal, job.delivery) for job in again] == [(0, 2), (1, 2), (2, 1)]
    assert {job.lease for job in first}.isdisjoint(job.lease for job in again)
    assert queue.stats().redeliveries == 2


def test_a_lease_that_runs_is_nobody_elses(queue: JobQueue) -> None:
    opened(queue, 1)
    leased(queue, "a")
    assert queue.lease("b", reward_digest="d", max_jobs=1, timeout_seconds=0.05) == []
    assert lease(queue, "a") == []


def test_renewal_keeps_a_lease_beyond_its_time(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 2)
    kept, let_go = lease(queue, max_jobs=2)
    # However slow this test is: until somebody asks for it, even an expired lease is renewed.
    deadline = time.monotonic() + SOON_SECONDS
    while queue.stats().leased != 1:
        assert queue.renew(kept, "a")
        expiring.let_time_pass()
        assert time.monotonic() < deadline
    queue.renew(kept, "a")
    jobs = lease(queue, "b", max_jobs=2)
    assert let_go.ordinal in ordinals(jobs)
    assert queue.stats().redeliveries == len(jobs)


def test_an_expired_lease_that_nobody_took_may_be_renewed(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    job = leased(queue)
    expiring.expire_leases()
    assert queue.renew(job, "a")
    assert queue.commit(job, "a", b"scored") is CommitOutcome.ACCEPTED


def test_only_the_owner_renews(queue: JobQueue) -> None:
    opened(queue, 1)
    job = leased(queue)
    assert queue.renew(job, "a")
    assert not queue.renew(job, "b")
    assert not queue.renew(replace(job, lease=job.lease + "0"), "a")


def test_a_worker_that_lost_its_lease_cannot_steal_it_back(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    lost = leased(queue, "a")
    held = taken_over(expiring, lost)
    assert not queue.renew(lost, "a")
    assert not queue.renew(lost, "b")
    assert not queue.renew(held, "a")
    assert queue.renew(held, "b")


def test_the_same_worker_that_leases_a_job_again_holds_only_the_last_lease(
    expiring: QueueUnderTest,
) -> None:
    queue = opened(expiring.queue, 1)
    lost = leased(queue, "a")
    held = taken_over(expiring, lost, "a")
    assert not queue.renew(lost, "a")
    assert queue.renew(held, "a")


def test_settled_and_returned_jobs_are_not_renewed(queue: JobQueue) -> None:
    opened(queue, 3)
    committed, given_back, failed = lease(queue, max_jobs=3)
    queue.commit(committed, "a", b"scored")
    queue.give_back(given_back, "a")
    queue.fail(failed, "a", failure())
    for job in (committed, given_back, failed):
        assert not queue.renew(job, "a")


@pytest.mark.parametrize("how", ["put", "give_back", "fail"])
def test_a_worker_that_waits_is_woken_by_a_job(queue: JobQueue, how: str) -> None:
    opened(queue, 1)
    held = leased(queue, "b")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.lease, "a", reward_digest="d", max_jobs=1, timeout_seconds=60.0)
        if how == "put":
            queue.put(3, 1, body(1))
        elif how == "give_back":
            queue.give_back(held, "b")
        else:
            queue.fail(held, "b", failure())
        assert ordinals(waiting.result(SOON_SECONDS)) == [int(how == "put")]


def test_a_worker_that_waits_gets_what_expires_meanwhile(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    leased(queue, "b")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.lease, "a", reward_digest="d", max_jobs=1, timeout_seconds=60.0)
        expiring.until(waiting.done)
        assert ordinals(waiting.result()) == [0]


def test_several_threads_lease_disjoint_jobs_and_leave_none(queue: JobQueue) -> None:
    num = 40
    queue.open_term(replace(TERM, capacity=num), frontier=0)

    def work(worker: str) -> list[int]:
        done: list[int] = []
        while jobs := queue.lease(worker, reward_digest="d", max_jobs=3, timeout_seconds=0.5):
            done += ordinals(jobs)
            for job in jobs:
                assert queue.commit(job, worker, job.body) is CommitOutcome.ACCEPTED
        return done

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, name) for name in "abcd"]
        for ordinal in range(num):
            queue.put(3, ordinal, body(ordinal))
        done = [ordinal for worker in workers for ordinal in worker.result(60)]
    assert sorted(done) == list(range(num))
    assert queue.results(3, range(num)) == {o: Result(scored=body(o)) for o in range(num)}
    assert queue.stats().redeliveries == 0


# Commits.


def test_the_first_commit_wins_and_the_next_is_a_duplicate(queue: JobQueue) -> None:
    opened(queue, 1)
    job = leased(queue)
    assert queue.commit(job, "a", b"\x00first\xff") is CommitOutcome.ACCEPTED
    assert queue.commit(job, "a", b"second") is CommitOutcome.DUPLICATE
    assert queue.results(3, [0]) == {0: Result(scored=b"\x00first\xff")}
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results, stats.duplicate_commits) == (0, 0, 1, 1)


def test_who_lost_the_lease_may_still_be_first(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    late = leased(queue, "a")
    held = taken_over(expiring, late)
    assert queue.commit(late, "a", b"late") is CommitOutcome.ACCEPTED
    assert queue.commit(held, "b", b"held") is CommitOutcome.DUPLICATE
    assert queue.fail(held, "b", failure()) is FailOutcome.STALE
    queue.give_back(held, "b")
    assert queue.results(3, [0]) == {0: Result(scored=b"late")}
    expiring.expire_leases()
    assert lease(queue, "c") == []


def test_a_late_commit_is_a_duplicate(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    late = leased(queue, "a")
    held = taken_over(expiring, late)
    assert queue.commit(held, "b", b"held") is CommitOutcome.ACCEPTED
    assert queue.commit(late, "a", b"late") is CommitOutcome.DUPLICATE
    assert queue.results(3, [0]) == {0: Result(scored=b"held")}


def test_a_commit_of_a_job_that_was_given_back_counts(queue: JobQueue) -> None:
    opened(queue, 1)
    job = leased(queue)
    queue.give_back(job, "a")
    assert queue.commit(job, "a", b"scored") is CommitOutcome.ACCEPTED
    assert lease(queue, "b") == []
    assert (queue.stats().backlog, queue.stats().leased) == (0, 0)


def test_a_commit_of_what_was_consumed_is_stale(queue: JobQueue) -> None:
    opened(queue, 2)
    first, second = lease(queue, max_jobs=2)
    queue.commit(first, "a", b"scored")
    queue.consume(3, before=2)
    assert queue.commit(first, "a", b"scored") is CommitOutcome.STALE
    assert queue.commit(second, "a", b"scored") is CommitOutcome.STALE
    assert queue.results(3, range(2)) == {}
    assert queue.stats().stale_commits == 2


def test_a_commit_counts_even_if_the_queue_has_forgotten_the_job(queue: JobQueue) -> None:
    """It was emptied and opened again: nobody else has scored it, and the score is right."""
    queue.open_term(TERM, frontier=2)
    job = Job(term=3, ordinal=2, body=body(2), delivery=1, lease="of the queue before")
    assert not queue.renew(job, "a")
    assert queue.commit(job, "a", b"scored") is CommitOutcome.ACCEPTED
    assert queue.missing(3, [2, 3]) == [3]
    assert not queue.put(3, 2, body(2))
    for ordinal in (1, 2 + CAPACITY):
        assert queue.commit(replace(job, ordinal=ordinal), "a", b"scored") is CommitOutcome.STALE


def test_of_commits_at_the_same_time_one_is_accepted(queue: JobQueue) -> None:
    opened(queue, CAPACITY)
    for job in lease(queue, max_jobs=CAPACITY):
        with ThreadPoolExecutor(4) as pool:
            texts = [b"scored by %d" % worker for worker in range(4)]
            outcomes = list(pool.map(lambda text, job=job: queue.commit(job, "a", text), texts))
        assert sorted(outcomes) == ["accepted", "duplicate", "duplicate", "duplicate"]
        winner = texts[outcomes.index(CommitOutcome.ACCEPTED)]
        assert queue.results(3, [job.ordinal]) == {job.ordinal: Result(scored=winner)}


# Failures.


def fail_with(queue: JobQueue, failures: Sequence[Failure]) -> list[FailOutcome]:
    return [queue.fail(leased(queue), "a", each) for each in failures]


RETRY, DEAD = FailOutcome.RETRY, FailOutcome.DEAD
CRASH, HANG = failure("signal 11", FailureKind.CRASH), failure("60 s", FailureKind.TIMEOUT)
NAN = failure("NaN", FailureKind.INVALID)


@pytest.mark.parametrize(
    ("failures", "outcomes"),
    [
        ([failure("boom"), failure("boom")], [RETRY, DEAD]),
        ([failure("boom"), failure("bang"), failure("boom")], [RETRY, RETRY, DEAD]),
        ([failure("boom"), failure("bang"), failure("pow")], [RETRY, RETRY, DEAD]),
        ([NAN, NAN], [RETRY, DEAD]),
        ([CRASH, CRASH, CRASH], [RETRY, RETRY, DEAD]),
        ([HANG, HANG, HANG], [RETRY, RETRY, DEAD]),
        ([CRASH, HANG, failure("boom")], [RETRY, RETRY, DEAD]),
        ([failure("boom"), CRASH, failure("boom")], [RETRY, RETRY, DEAD]),
        ([failure("signal 11"), CRASH, HANG], [RETRY, RETRY, DEAD]),
    ],
)
def test_a_job_dies_of_two_equal_exceptions_or_three_failures(
    queue: JobQueue, failures: list[Failure], outcomes: list[FailOutcome]
) -> None:
    opened(queue, 1)
    assert fail_with(queue, failures) == outcomes
    assert lease(queue) == []
    assert queue.results(3, [0]) == {0: Result(dead=body(0))}
    (letter,) = queue.dead_letters()
    assert (letter.term, letter.ordinal, letter.body) == (3, 0, body(0))
    assert (letter.worker, letter.reward_digest) == ("a", "d")
    assert list(letter.failures) == failures
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results, stats.dead) == (0, 0, 1, 1)
    for kind in FailureKind:
        assert stats.failures[kind] == sum(each.kind is kind for each in failures)


def test_a_failed_job_goes_to_the_next_who_asks_and_may_yet_succeed(queue: JobQueue) -> None:
    opened(queue, 2)
    assert queue.fail(leased(queue), "a", CRASH) is FailOutcome.RETRY
    again = leased(queue, "b")
    assert (again.ordinal, again.delivery) == (0, 2)
    assert queue.commit(again, "b", b"scored") is CommitOutcome.ACCEPTED
    assert queue.results(3, [0]) == {0: Result(scored=b"scored")}
    assert queue.dead_letters() == []


def test_a_failure_reported_twice_counts_once(queue: JobQueue) -> None:
    opened(queue, 1)
    job = leased(queue)
    assert queue.fail(job, "a", failure("boom")) is FailOutcome.RETRY
    assert queue.fail(job, "a", failure("boom")) is FailOutcome.STALE
    assert queue.stats().failures[FailureKind.EXCEPTION] == 1
    assert queue.missing(3, [0]) == []
    assert leased(queue).delivery == 2


def test_only_the_owners_failure_counts(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    lost = leased(queue, "a")
    held = taken_over(expiring, lost)
    for job, worker in ((lost, "a"), (lost, "b"), (held, "a")):
        assert queue.fail(job, worker, CRASH) is FailOutcome.STALE
    assert queue.stats().failures[FailureKind.CRASH] == 0
    assert queue.renew(held, "b")
    assert queue.fail(held, "b", CRASH) is FailOutcome.RETRY


def test_failures_of_what_is_settled_count_nothing(queue: JobQueue) -> None:
    opened(queue, 2)
    committed, consumed = lease(queue, max_jobs=2)
    queue.commit(committed, "a", b"scored")
    assert queue.fail(committed, "a", CRASH) is FailOutcome.STALE
    assert queue.results(3, [0]) == {0: Result(scored=b"scored")}
    queue.consume(3, before=2)
    assert queue.fail(consumed, "a", CRASH) is FailOutcome.STALE
    assert queue.stats().failures[FailureKind.CRASH] == 0


def test_a_job_that_kills_its_workers_without_a_word_dies_of_it(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 2)
    for delivery in range(1, expiring.limits.max_deliveries + 1):
        (job,) = queue.lease("a", reward_digest="of a", max_jobs=1, timeout_seconds=0)
        assert (job.ordinal, job.delivery) == (0, delivery)
        assert queue.results(3, [0]) == {}
        expiring.expire_leases()
    assert leased(queue, "b").ordinal == 1
    assert queue.results(3, [0, 1]) == {0: Result(dead=body(0))}
    (letter,) = queue.dead_letters()
    assert (letter.ordinal, letter.worker, letter.reward_digest) == (0, "a", "of a")
    assert list(letter.failures) == []
    assert queue.stats().dead == 1
    assert sum(queue.stats().failures.values()) == 0


def test_deliveries_that_were_reported_on_are_no_anonymous_losses(
    expiring: QueueUnderTest,
) -> None:
    queue = opened(expiring.queue, 1)
    job = leased(queue)
    queue.renew(job, "a")
    assert queue.fail(job, "a", CRASH) is FailOutcome.RETRY
    for _ in range(expiring.limits.max_deliveries):
        leased(queue)
        expiring.expire_leases()
    assert lease(queue) == []
    (letter,) = queue.dead_letters()
    assert list(letter.failures) == [CRASH]


def test_a_score_that_comes_after_death_is_a_duplicate(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    late = leased(queue)
    held = taken_over(expiring, late)
    expiring.queue.renew(held, "b")
    queue.fail(held, "b", failure("boom"))
    again = leased(queue, "b")
    assert queue.fail(again, "b", failure("boom")) is FailOutcome.DEAD
    assert queue.commit(late, "a", b"scored") is CommitOutcome.DUPLICATE
    assert queue.results(3, [0]) == {0: Result(dead=body(0))}


def test_a_dead_job_leaves_its_letter_when_it_is_consumed(queue: JobQueue) -> None:
    opened(queue, 1)
    fail_with(queue, [NAN, NAN])
    queue.consume(3, before=1)
    assert queue.results(3, [0]) == {}
    assert [letter.ordinal for letter in queue.dead_letters()] == [0]
    assert queue.stats().results == 0
    assert queue.stats().dead == 1


# Give back.


def test_a_job_given_back_is_as_if_it_had_never_been_leased(queue: JobQueue) -> None:
    opened(queue, 1)
    for _ in range(2 * LONG.max_deliveries):
        job = leased(queue)
        assert job.delivery == 1
        queue.give_back(job, "a")
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results, stats.redeliveries) == (1, 0, 0, 0)
    assert sum(stats.failures.values()) == 0
    assert queue.dead_letters() == []


def test_giving_back_what_is_not_ones_own_does_nothing(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    lost = leased(queue, "a")
    held = taken_over(expiring, lost)
    for job, worker in ((lost, "a"), (lost, "b"), (held, "a")):
        queue.give_back(job, worker)
    assert queue.renew(held, "b")
    assert held.delivery == 2
    assert taken_over(expiring, held, "c").delivery == 3


# What the learner sees.


def test_missing_is_what_the_queue_knows_nothing_of(queue: JobQueue) -> None:
    opened(queue, 5)
    queue.consume(3, before=1)
    scored, dead, _ = lease(queue, max_jobs=3)
    queue.commit(scored, "a", b"scored")
    queue.fail(dead, "a", NAN)
    queue.fail(leased(queue), "a", NAN)
    assert queue.missing(3, range(8)) == [5, 6, 7]
    assert queue.missing(3, [7, 0, 6]) == [7, 6]
    assert queue.missing(3, []) == []


def test_results_stay_until_consumed(queue: JobQueue) -> None:
    opened(queue, 4)
    for job in lease(queue, max_jobs=3):
        queue.commit(job, "a", b"scored %d" % job.ordinal)
    for _ in range(2):
        assert queue.results(3, range(4)) == {
            ordinal: Result(scored=b"scored %d" % ordinal) for ordinal in range(3)
        }
    assert queue.results(3, [2, 3]) == {2: Result(scored=b"scored 2")}
    assert queue.results(3, []) == {}
    queue.consume(3, before=2)
    assert queue.results(3, range(4)) == {2: Result(scored=b"scored 2")}


def test_consuming_drops_jobs_and_leases_of_smaller_ordinals(queue: JobQueue) -> None:
    opened(queue, 5)
    held = leased(queue)
    queue.consume(3, before=3)
    assert not queue.renew(held, "a")
    queue.give_back(held, "a")
    assert ordinals(lease(queue, max_jobs=9)) == [3, 4]
    stats = queue.stats()
    assert (stats.frontier, stats.backlog, stats.leased, stats.results) == (3, 0, 2, 0)
    assert queue.missing(3, range(6)) == [5]
    queue.consume(3, before=1)
    assert queue.stats().frontier == 3


def test_the_frontier_may_move_beyond_everything_there_is(queue: JobQueue) -> None:
    opened(queue, 2)
    queue.consume(3, before=1000)
    assert (queue.stats().frontier, queue.stats().backlog) == (1000, 0)
    assert queue.put(3, 1000, b"group")
    assert leased(queue).ordinal == 1000


def quiet(queue: JobQueue) -> None:
    """Hear the bell out: return when nothing has come for a moment."""
    deadline = time.monotonic() + SOON_SECONDS
    while True:
        assert time.monotonic() < deadline
        began = time.monotonic()
        queue.wait(3, timeout_seconds=0.1)
        if time.monotonic() - began >= 0.1:
            return


@pytest.mark.parametrize("how", ["commit", "death"])
def test_the_learner_is_woken_by_a_result(queue: JobQueue, how: str) -> None:
    opened(queue, 2)
    job = leased(queue)
    quiet(queue)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, 3, timeout_seconds=60.0)
        if how == "commit":
            queue.commit(job, "a", b"scored")
        else:
            queue.fail(job, "a", NAN)
            queue.fail(leased(queue), "a", NAN)
        waiting.result(SOON_SECONDS)
    assert len(queue.results(3, [0])) == 1


def test_a_result_that_came_between_two_waits_is_not_slept_through(queue: JobQueue) -> None:
    opened(queue, 1)
    quiet(queue)
    queue.commit(leased(queue), "a", b"scored")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(queue.wait, 3, timeout_seconds=60.0).result(SOON_SECONDS)


def test_the_learner_is_woken_by_a_job_that_was_given_up(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    for _ in range(expiring.limits.max_deliveries):
        leased(queue)
        expiring.expire_leases()
    quiet(queue)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.wait, 3, timeout_seconds=60.0)
        assert lease(queue) == []
        waiting.result(SOON_SECONDS)
    assert queue.results(3, [0]) == {0: Result(dead=body(0))}


# Workers and operators.


def test_workers_are_listed_as_they_describe_themselves(queue: JobQueue) -> None:
    other = replace(RECORD, worker="b", state="starting", busy=0, message="")
    assert not queue.heartbeat(RECORD, ttl_seconds=60)
    assert not queue.heartbeat(other, ttl_seconds=60)
    assert sorted(queue.workers(), key=lambda record: record.worker) == [RECORD, other]
    later = replace(RECORD, busy=2)
    queue.heartbeat(later, ttl_seconds=60)
    assert later in queue.workers()
    assert len(queue.workers()) == 2
    queue.deregister("b")
    queue.deregister("never heard of")
    assert queue.workers() == [later]


def test_a_silent_worker_is_listed_no_more(expiring: QueueUnderTest) -> None:
    queue = expiring.queue
    queue.heartbeat(RECORD, ttl_seconds=60)
    queue.heartbeat(replace(RECORD, worker="b"), ttl_seconds=0.1)
    expiring.until(lambda: len(queue.workers()) < 2)
    assert queue.workers() == [RECORD]


def test_a_new_term_keeps_the_workers(queue: JobQueue) -> None:
    queue.heartbeat(RECORD, ttl_seconds=60)
    queue.request_drain("b")
    queue.open_term(TERM, frontier=0)
    queue.open_term(NEXT_TERM, frontier=0)
    assert queue.workers() == [RECORD]
    assert queue.heartbeat(replace(RECORD, worker="b"), ttl_seconds=60)


def test_a_worker_that_was_asked_to_drain_hears_of_it_until_it_leaves(queue: JobQueue) -> None:
    queue.heartbeat(RECORD, ttl_seconds=60)
    queue.request_drain("a")
    assert not queue.heartbeat(replace(RECORD, worker="b"), ttl_seconds=60)
    for _ in range(2):
        assert queue.heartbeat(RECORD, ttl_seconds=60)
    queue.deregister("a")
    assert not queue.heartbeat(RECORD, ttl_seconds=60)


def test_what_a_worker_held_when_it_left_goes_on(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    queue.heartbeat(RECORD, ttl_seconds=60)
    job = leased(queue)
    queue.deregister("a")
    assert taken_over(expiring, job).delivery == 2
    assert queue.commit(job, "a", b"scored") is CommitOutcome.ACCEPTED


def test_stats_count_what_there_is(queue: JobQueue) -> None:
    opened(queue, 7, frontier=4)
    scored, dead, _, returned = lease(queue, max_jobs=4)
    queue.commit(scored, "a", b"scored")
    queue.fail(dead, "a", NAN)
    queue.fail(leased(queue), "a", NAN)
    queue.give_back(returned, "a")
    stats = queue.stats()
    assert (stats.term, stats.frontier) == (3, 4)
    assert (stats.backlog, stats.leased, stats.results) == (4, 1, 2)
    assert (stats.redeliveries, stats.duplicate_commits, stats.stale_commits) == (1, 0, 0)
    assert stats.dead == 1
    assert stats.failures == {"exception": 0, "crash": 0, "timeout": 0, "invalid": 2}


def test_an_expired_lease_is_backlog(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 2)
    leased(queue)
    expiring.expire_leases()
    assert (queue.stats().backlog, queue.stats().leased) == (2, 0)


def test_the_oldest_job_without_a_result_has_an_age(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 2)
    expiring.until(lambda: queue.stats().oldest_seconds > 0.05)
    for job in lease(queue, max_jobs=2):
        queue.commit(job, "a", b"scored")
    assert queue.stats().oldest_seconds == 0


def test_closing_keeps_what_is_queued(queue: JobQueue) -> None:
    opened(queue, 1)
    queue.close()
    assert queue.stats().backlog == 1
