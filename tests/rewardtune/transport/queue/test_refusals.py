"""What every job queue does with what is refused, and whose queue it is; on all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rewardtune.transport.queue.job_queue import (
    MAX_NAMED,
    OTHERS,
    CommitOutcome,
    FailOutcome,
    Failure,
    FailureKind,
    Job,
    JobQueue,
    QueueRefused,
    QueueUnavailable,
    Term,
)
from rewardtune.transport.term import StaleTerm
from tests.rewardtune.transport.conftest import QueueUnderTest

TERM = Term(number=3, spec=b"spec", capacity=8, run_id="ours", seal=b"\x00seal\xff")
BOOM = Failure(FailureKind.EXCEPTION, "boom")


def opened(queue: JobQueue, num_jobs: int) -> JobQueue:
    queue.open_term(TERM, frontier=0)
    for ordinal in range(num_jobs):
        assert queue.put(3, ordinal, b"group %d" % ordinal, seal=b"seal \x00%d" % ordinal)
    return queue


def leased(queue: JobQueue, worker: str = "a") -> Job:
    (job,) = queue.lease(worker, reward_digest="d", max_jobs=1, timeout_seconds=0)
    return job


def committed(queue: JobQueue, worker: str = "a") -> Job:
    job = leased(queue, worker)
    assert queue.commit(job, worker, b"scored") is CommitOutcome.ACCEPTED
    return job


# Seals.


def test_a_seal_goes_out_with_the_job_and_back_with_its_result(queue: JobQueue) -> None:
    opened(queue, 1)
    assert leased(queue).seal == b"seal \x000"
    queue.open_term(replace(TERM, number=4), frontier=0)
    queue.put(4, 0, b"group", seal=b"\xff\x00")
    committed(queue, "worker of the name grün")
    result = queue.results(4, [0])[0]
    assert (result.seal, result.worker) == (b"\xff\x00", "worker of the name grün")


def test_a_group_that_nobody_could_score_keeps_its_seal_and_who_had_it_last(
    queue: JobQueue,
) -> None:
    opened(queue, 1)
    for worker in ("a", "b"):
        outcome = queue.fail(leased(queue, worker), worker, BOOM)
    assert outcome is FailOutcome.DEAD
    result = queue.results(3, [0])[0]
    assert (result.dead, result.seal, result.worker) == (b"group 0", b"seal \x000", "b")


def test_a_result_of_a_job_that_the_queue_has_forgotten_has_the_seal_of_its_lease(
    queue: JobQueue,
) -> None:
    opened(queue, 1)
    job = leased(queue)
    queue.open_term(TERM, frontier=0, afresh=True)
    assert queue.missing(3, [0]) == [0]
    assert queue.commit(job, "a", b"scored") is CommitOutcome.ACCEPTED
    assert queue.results(3, [0])[0].seal == job.seal


# Refusals.


def test_a_refused_result_is_gone_and_its_job_waits_behind_those_that_wait(
    queue: JobQueue,
) -> None:
    opened(queue, 2)
    committed(queue)
    queue.refuse(3, 0, worker="a", keep_group=True)
    assert queue.results(3, [0]) == {}
    assert queue.missing(3, [0, 1]) == []
    stats = queue.stats()
    assert (stats.backlog, stats.leased, stats.results) == (2, 0, 0)
    assert leased(queue).ordinal == 1
    again = leased(queue)
    assert (again.ordinal, again.body, again.seal) == (0, b"group 0", b"seal \x000")
    assert queue.commit(again, "a", b"better") is CommitOutcome.ACCEPTED
    assert queue.results(3, [0])[0].scored == b"better"


def test_a_refused_result_whose_group_is_not_kept_is_missing(queue: JobQueue) -> None:
    opened(queue, 2)
    committed(queue)
    queue.refuse(3, 0, worker="a", keep_group=False)
    assert queue.missing(3, [0, 1]) == [0]
    assert queue.results(3, [0]) == {}
    assert queue.put(3, 0, b"drawn again", seal=b"anew")
    assert leased(queue).ordinal == 1
    again = leased(queue)
    assert (again.body, again.seal, again.delivery) == (b"drawn again", b"anew", 1)


def test_a_dead_group_that_is_refused_is_drawn_again(queue: JobQueue) -> None:
    opened(queue, 1)
    for _ in range(2):
        queue.fail(leased(queue), "a", BOOM)
    queue.refuse(3, 0, worker="a", keep_group=False)
    assert queue.missing(3, [0]) == [0]


def test_refusals_count_against_the_worker_and_not_against_the_group(queue: JobQueue) -> None:
    opened(queue, 1)
    assert queue.fail(leased(queue), "a", BOOM) is FailOutcome.RETRY
    for _ in range(20):
        committed(queue, "liar")
        queue.refuse(3, 0, worker="liar", keep_group=True)
    assert queue.stats().refused == {"liar": 20}
    assert queue.stats().failures["exception"] == 1
    # What was counted before still is: the same exception a second time is the last.
    assert queue.fail(leased(queue), "a", BOOM) is FailOutcome.DEAD


def test_refusing_what_is_not_there_does_nothing(queue: JobQueue) -> None:
    opened(queue, 2)
    committed(queue)
    queue.refuse(3, 1, worker="a", keep_group=True)
    queue.refuse(3, 7, worker="a", keep_group=True)
    queue.consume(3, before=1)
    queue.refuse(3, 0, worker="a", keep_group=True)
    assert queue.stats().refused == {}
    assert (queue.stats().backlog, queue.stats().results) == (1, 0)
    with pytest.raises(StaleTerm):
        queue.refuse(2, 1, worker="a", keep_group=True)
    with pytest.raises(QueueUnavailable):
        queue.refuse(4, 1, worker="a", keep_group=True)


def test_a_late_report_of_a_refused_result_is_stale(queue: JobQueue) -> None:
    opened(queue, 1)
    job = committed(queue)
    queue.refuse(3, 0, worker="a", keep_group=True)
    assert not queue.renew(job, "a")
    assert queue.fail(job, "a", BOOM) is FailOutcome.STALE
    queue.give_back(job, "a")
    assert leased(queue).delivery == 1


def test_a_refused_job_that_is_never_reported_on_dies_of_it(expiring: QueueUnderTest) -> None:
    queue = opened(expiring.queue, 1)
    committed(queue)
    queue.refuse(3, 0, worker="a", keep_group=True)
    for _ in range(3):
        leased(queue)
        expiring.expire_leases()
    assert queue.lease("a", reward_digest="d", max_jobs=1, timeout_seconds=0) == []
    assert queue.results(3, [0])[0].dead == b"group 0"


def test_names_do_not_fill_the_queue(queue: JobQueue) -> None:
    opened(queue, 1)
    for number in range(MAX_NAMED + 3):
        committed(queue, f"liar {number}")
        queue.refuse(3, 0, worker=f"liar {number}", keep_group=True)
    refused = queue.stats().refused
    assert len(refused) == MAX_NAMED + 1
    assert refused[OTHERS] == 3


def test_counts_of_refusals_begin_anew_with_a_term(queue: JobQueue) -> None:
    opened(queue, 1)
    committed(queue)
    queue.refuse(3, 0, worker="a", keep_group=True)
    queue.open_term(replace(TERM, number=4), frontier=0)
    assert queue.stats().refused == {}


# Whose queue it is.


@pytest.mark.parametrize("number", [0, 3, 10**6])
def test_another_run_of_the_name_is_refused_whatever_its_term(queue: JobQueue, number: int) -> None:
    opened(queue, 1)
    theirs = Term(number=number, spec=b"spec", capacity=8, run_id="theirs")
    with pytest.raises(QueueRefused, match="another run.*ours") as refused:
        queue.open_term(theirs, frontier=0)
    assert "\n" not in str(refused.value)
    assert queue.term() == TERM
    assert leased(queue).body == b"group 0"


def test_a_queue_of_before_there_were_ids_is_taken_over(queue: JobQueue) -> None:
    queue.open_term(replace(TERM, run_id="", seal=b""), frontier=0)
    queue.put(3, 0, b"group")
    with pytest.raises(StaleTerm):
        queue.open_term(replace(TERM, number=2), frontier=0)
    queue.open_term(replace(TERM, number=4), frontier=0)
    term = queue.term()
    assert term is not None and term.run_id == "ours"
    assert queue.missing(4, [0]) == [0]


def test_a_queue_that_is_begun_afresh_believes_nothing_of_before(queue: JobQueue) -> None:
    opened(queue, 3)
    committed(queue)
    queue.open_term(Term(number=10**6, spec=b"forged", capacity=1, run_id="ours"), frontier=99)
    queue.open_term(TERM, frontier=0, afresh=True)
    assert queue.term() == TERM
    assert queue.missing(3, range(8)) == list(range(8))
    stats = queue.stats()
    assert (stats.frontier, stats.backlog, stats.leased, stats.results) == (0, 0, 0, 0)
    assert queue.put(3, 7, b"group")
    assert leased(queue).ordinal == 7
