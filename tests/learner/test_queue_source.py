"""A learner whose queue was written to by somebody who is no part of its run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learner.source import MAX_CLEARED, MAX_REFUSALS, QueuePoisoned, QueueSource
from rewardtune.records import Group, Published, Score, ScoredGroup, View
from rewardtune.transport.queue.job_queue import QueueRefused, Term
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.seal import RunSeal
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.wire import group_to_bytes, scored_group_to_bytes

SEAL = RunSeal("ours", b"secret")
SPEC, CAPACITY = b"spec", 4


def own_term(number: int) -> Term:
    return Term(number, SPEC, CAPACITY, "ours", SEAL.of_term(number, CAPACITY, SPEC))


def source(queue: MemoryJobQueue, number: int = 3) -> QueueSource:
    return QueueSource(queue, own_term(number), patience_seconds=0.0, seal=SEAL)


def group(ordinal: int) -> Group:
    zeros = np.zeros((2, 1), dtype=np.float32)
    return Group(
        ordinal=ordinal,
        example=0,
        view=View(),
        published=Published(3, 0),
        tokens_ST=np.ones((2, 1), dtype=np.int32),
        log_probs_ST=zeros,
        probe_log_probs_STQ=zeros[..., None],
    )


def put(queue: MemoryJobQueue, ordinal: int) -> None:
    body = group_to_bytes(group(ordinal))
    assert queue.put(3, ordinal, body, seal=SEAL.of_group(3, ordinal, body))


def commit(queue: MemoryJobQueue, worker: str, scored: bytes | None = None) -> int:
    """Lease a job and report so, or else an honest score of it."""
    (job,) = queue.lease(worker, reward_digest="", max_jobs=1, timeout_seconds=0)
    honest = scored_group_to_bytes(ScoredGroup(group(job.ordinal), Score(np.zeros(2))))
    queue.commit(job, worker, honest if scored is None else scored)
    return job.ordinal


def test_a_bad_result_is_told_and_the_good_one_that_comes_then_is_learned_from() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    put(queue, 0)
    commit(queue, "liar", b"FORGED")
    assert learner.collect(range(1)) is None
    (told,) = learner.take_messages()
    assert told.startswith("refused what worker liar reported of group 0: 6 bytes are not a Scored")
    commit(queue, "honest")
    collected = learner.collect(range(1))
    assert collected is not None
    assert [each.group.ordinal for each in collected.scored] == [0]
    assert learner.take_messages() == ()


def test_every_third_refusal_has_the_group_drawn_again() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    put(queue, 0)
    for time in range(1, 7):
        commit(queue, "liar", b"FORGED")
        learner.collect(range(1))
        is_missing = queue.missing(3, [0]) == [0]
        assert is_missing == (time % 3 == 0)
        if is_missing:
            put(queue, 0)


def test_a_group_of_which_nothing_good_comes_ends_the_run_in_one_line() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    for _ in range(MAX_REFUSALS - 1):
        if queue.missing(3, [0]):
            put(queue, 0)
        commit(queue, "liar", b"FORGED")
        assert learner.collect(range(1)) is None
    put(queue, 0)
    commit(queue, "liar", b"FORGED")
    with pytest.raises(QueuePoisoned, match="100 results of group 0 .* of worker liar: ") as ended:
        learner.collect(range(1))
    assert "\n" not in str(ended.value)
    told = learner.take_messages()
    assert len(told) == 11
    assert told[-1] == "and 90 more of the kind"


def test_a_term_that_no_learner_opened_is_taken_back() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    put(queue, 0)
    queue.open_term(Term(10**6, SPEC, CAPACITY, "ours", b"guessed"), frontier=0)
    assert learner.collect(range(1)) is None
    assert queue.term() == own_term(3)
    assert queue.missing(3, [0]) == [0]
    assert any("cleared the queue" in told for told in learner.take_messages())


def test_a_learner_that_starts_on_a_forged_term_is_not_locked_out() -> None:
    queue = MemoryJobQueue()
    queue.open_term(Term(10**6, SPEC, CAPACITY, "ours", b"guessed"), frontier=0)
    source(queue, 4).open(frontier=0)
    assert queue.term() == own_term(4)


def test_a_term_that_a_newer_learner_opened_stands() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    source(queue, 4).open(frontier=0)
    with pytest.raises(StaleTerm, match="term 4 has taken over"):
        learner.collect(range(1))
    assert queue.term() == own_term(4)


def test_a_spec_that_was_exchanged_is_put_right() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    learner.open(frontier=0)
    queue.open_term(replace(own_term(3), spec=b"forged"), frontier=0, afresh=True)
    learner.open(frontier=0)
    assert queue.term() == own_term(3)


def test_a_frontier_beyond_the_learners_is_put_back() -> None:
    queue = MemoryJobQueue()
    learner = QueueSource(queue, own_term(3), patience_seconds=1.5, seal=SEAL)
    learner.open(frontier=0)
    put(queue, 0)
    queue.consume(3, before=2)
    assert queue.missing(3, [0]) == []
    assert learner.collect(range(1)) is None
    assert queue.missing(3, [0]) == [0]


def test_another_run_keeps_its_queue() -> None:
    queue = MemoryJobQueue()
    theirs = Term(0, SPEC, CAPACITY, "theirs")
    queue.open_term(theirs, frontier=0)
    with pytest.raises(QueueRefused, match="another run .theirs."):
        source(queue).open(frontier=0)
    assert queue.term() == theirs


def test_a_queue_that_is_spoilt_again_and_again_ends_the_run_in_one_line() -> None:
    queue = MemoryJobQueue()
    learner = source(queue)
    forged = Term(10**6, SPEC, CAPACITY, "ours", b"")
    for _ in range(MAX_CLEARED):
        queue.open_term(forged, frontier=0, afresh=True)
        learner.open(frontier=0)
    queue.open_term(forged, frontier=0, afresh=True)
    with pytest.raises(QueuePoisoned, match="cleared 100 times") as ended:
        learner.open(frontier=0)
    assert "\n" not in str(ended.value)
