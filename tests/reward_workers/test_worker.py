"""Workers with real children and a queue in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from reward_workers.metrics import CORE_SECONDS, ERRORS, GROUPS, RESTARTS, SCORERS, STATE
from reward_workers.scoring.spec import ScoringSpec
from reward_workers.worker import DRAINED, QUEUE_REFUSED
from rewardtune.transport.queue.job_queue import (
    CommitOutcome,
    FailureKind,
    JobQueue,
    QueueLimits,
    QueueRefused,
    QueueUnavailable,
)
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.wire import group_from_bytes, scored_group_from_bytes
from tests.reward_workers.passed_on import PassedOn
from tests.reward_workers.scoring_run import (
    by_token_spec,
    eventually,
    group_of,
    open_term,
    results,
    spec_of,
    working,
)
from tests.reward_workers.user_folder.by_token import (
    EXIT,
    FLOAT32,
    HANG,
    KILL,
    NAN,
    PRINT,
    RAISE,
    SEGFAULT,
    SHORT,
    SPAWN,
    UNPLUG,
    WAIT,
)

pytestmark = pytest.mark.slow


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def begun(folder: Path, number: int) -> None:
    """Return once the group (WAIT, number, ...) is being scored."""
    eventually((folder / f"begun-{number}").exists, f"group {number} being scored")


def let_go(folder: Path, number: int) -> None:
    (folder / f"go-{number}").touch()


@pytest.mark.alone
def test_every_way_to_fail_is_told_from_the_others_and_nothing_else_suffers(
    queue: JobQueue, data: Path
) -> None:
    spoiled = {
        1: (HANG, FailureKind.TIMEOUT, "no score after 0.5 s: scorer killed", "in score"),
        2: (SEGFAULT, FailureKind.CRASH, "scorer was ended by SIGSEGV", "Segmentation fault"),
        3: (KILL, FailureKind.CRASH, "scorer was ended by SIGKILL", ""),
        4: (EXIT, FailureKind.CRASH, "scorer ended with exit code 7", ""),
        5: (RAISE, FailureKind.EXCEPTION, "KeyError: 'no such word", "by_token.py"),
        6: (NAN, FailureKind.INVALID, "reward is nan, not a number", ""),
        7: (SHORT, FailureKind.INVALID, "reward has shape [1] but 2 rollouts", ""),
        8: (FLOAT32, FailureKind.INVALID, "reward must be float64, got float32", ""),
    }
    open_term(queue, by_token_spec(data))
    for ordinal in range(12):
        token = spoiled[ordinal][0] if ordinal in spoiled else ordinal
        queue.put(0, ordinal, group_of(ordinal, PRINT if ordinal == 9 else token, 2, 3))
    with working(queue, data, deadline_seconds=0.5, num_scorers=2) as running:
        found = results(queue, range(12))
        eventually(lambda: running.metrics.values[SCORERS, "ready"] == 2, "all scorers replaced")
    for ordinal in set(range(12)) - spoiled.keys():
        total = (PRINT if ordinal == 9 else ordinal) + 5.0
        assert found[ordinal] == [total, total + 1]
    letters = {letter.ordinal: letter for letter in queue.dead_letters()}
    assert letters.keys() == spoiled.keys()
    for ordinal, (token, kind, message, traceback) in spoiled.items():
        assert found[ordinal] is None
        assert group_from_bytes(letters[ordinal].body).tokens_ST[0, 0] == token
        for failure in letters[ordinal].failures:
            assert failure.kind is kind
            assert message in failure.message and "\n" not in failure.message
            assert traceback in failure.traceback
    counts, stats = running.metrics.counts, queue.stats()
    assert (stats.backlog, stats.leased, stats.results, stats.dead) == (0, 0, 12, 8)
    assert counts[GROUPS, "accepted"] == 4
    assert counts[GROUPS, "failed"] == 2 * 8  # every job has a second chance
    assert (counts[ERRORS, "timeout"], counts[ERRORS, "crash"]) == (2, 6)
    assert (counts[ERRORS, "exception"], counts[ERRORS, "invalid"]) == (2, 6)
    assert (counts[RESTARTS, "timeout"], counts[RESTARTS, "crash"]) == (2, 6)
    assert 1.0 < counts[(CORE_SECONDS,)] < 60


@pytest.mark.alone
def test_what_a_hanging_reward_has_started_is_killed_with_it(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, SPAWN, 2, 3))
    with working(queue, data, deadline_seconds=0.5):
        assert results(queue, [0]) == {0: None}
    spawned = int((tmp_path / "spawned").read_text())
    eventually(lambda: not exists(spawned), "the grandchild's end", seconds=5)


@pytest.mark.alone
def test_leases_are_renewed_while_scorers_work_and_while_jobs_wait(
    data: Path, tmp_path: Path
) -> None:
    queue = PassedOn(MemoryJobQueue(limits=QueueLimits(lease_seconds=0.3)))
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    for ordinal in range(2):
        queue.put(0, ordinal, group_of(ordinal, WAIT, ordinal, 3))
    with working(queue, data, lease_seconds=0.3) as running:
        begun(tmp_path, 0)
        eventually(lambda: queue.num_renewed >= 20, "both leases renewed three times over")
        assert queue.stats().leased == 2
        for number in range(2):
            let_go(tmp_path, number)
        results(queue, range(2))
    assert queue.stats().redeliveries == 0
    assert running.metrics.counts[GROUPS, "accepted"] == 2


@pytest.mark.alone
def test_a_commit_that_comes_late_counts_nothing_twice(data: Path, tmp_path: Path) -> None:
    queue = PassedOn(MemoryJobQueue(limits=QueueLimits(lease_seconds=0.2)))
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    queue.may_renew = False
    with working(queue, data, lease_seconds=0.2, prefetch=0) as running:
        begun(tmp_path, 0)
        (job,) = queue.lease("other", reward_digest="", max_jobs=1, timeout_seconds=20)
        assert job.delivery == 2
        let_go(tmp_path, 0)
        eventually(lambda: running.metrics.counts[GROUPS, "accepted"] == 1, "the first commit")
        theirs = queue.results(0, [0])[0].scored
        assert theirs is not None
        assert queue.commit(job, "other", theirs) is CommitOutcome.DUPLICATE

        queue.put(0, 1, group_of(1, WAIT, 1, 3))
        begun(tmp_path, 1)
        (job,) = queue.lease("other", reward_digest="", max_jobs=1, timeout_seconds=20)
        assert queue.commit(job, "other", b"the other's") is CommitOutcome.ACCEPTED
        let_go(tmp_path, 1)
        eventually(lambda: running.metrics.counts[GROUPS, "duplicate"] == 1, "the late commit")
    assert queue.results(0, [1])[1].scored == b"the other's"
    assert queue.stats().results == 2


def test_a_drain_in_mid_score_finishes_that_group_and_gives_back_the_rest(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    for ordinal in range(2):
        queue.put(0, ordinal, group_of(ordinal, WAIT, ordinal, 3))
    with working(queue, data, prefetch=1) as running:
        begun(tmp_path, 0)
        eventually(lambda: queue.stats().leased == 2, "the second group is fetched too")
        running.worker.drain()
        eventually(lambda: queue.stats().backlog == 1, "the second group is given back")
        assert [record.state for record in queue.workers()] == ["draining"]
        assert running.exit_code is None
        let_go(tmp_path, 0)
        running.join()
    assert running.exit_code == DRAINED
    assert list(queue.results(0, range(2))) == [0]
    assert queue.workers() == []
    counts = running.metrics.counts
    assert (counts[GROUPS, "accepted"], counts[GROUPS, "given_back"]) == (1, 1)
    (job,) = queue.lease("next", reward_digest="", max_jobs=2, timeout_seconds=5)
    assert (job.ordinal, job.delivery) == (1, 1)
    assert not any(queue.stats().failures.values())


def test_a_drain_does_not_wait_for_ever_and_gives_the_group_back(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    with working(queue, data, name="slow", drain_seconds=0.2) as running:
        begun(tmp_path, 0)
        pids = running.worker.scorer_pids
        queue.request_drain("slow")  # as an operator does
        running.join()
        assert running.exit_code == DRAINED
    assert not any(map(exists, pids))
    assert not any(queue.stats().failures.values())
    with working(queue, data):
        let_go(tmp_path, 0)
        assert results(queue, [0]) == {0: [WAIT + 3.0, WAIT + 4.0]}


def test_a_scorer_is_replaced_after_so_many_groups(queue: JobQueue, data: Path) -> None:
    open_term(queue, by_token_spec(data))
    for ordinal in range(5):
        queue.put(0, ordinal, group_of(ordinal, 1, 2, 3))
    with working(queue, data, max_groups_per_scorer=2) as running:
        running.eventually_is("ready")
        first = running.worker.scorer_pids
        assert results(queue, range(5)) == {ordinal: [6.0, 7.0] for ordinal in range(5)}
        assert running.metrics.counts[RESTARTS, "recycled"] == 2
        assert set(first).isdisjoint(running.worker.scorer_pids)
        assert not any(map(exists, first))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dataset_digest": "e" * 64}, "uses eeeeeeeeeeee: point --data at a copy"),
        ({"reward_digest": "f" * 64}, "uses ffffffffffff: install the same sources"),
        ({"golden": 1.0}, "golden example 0 (example 0) gets rewards"),
        ({"scorer": 2}, "start this worker with --threads 2"),
        ({"task": "poetry"}, "task 'poetry' is neither"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_worker_that_would_score_otherwise_leases_nothing_and_says_why(
    queue: JobQueue, data: Path, change: dict[str, Any], complaint: str
) -> None:
    right = by_token_spec(data)
    open_term(queue, _changed(right, change))
    queue.put(0, 0, group_of(0, 1, 2, 3))
    with working(queue, data) as running:
        running.eventually_is("refused")
        eventually(lambda: bool(queue.workers()), "it is listed all the same")
        eventually(lambda: queue.workers()[0].state == "refused", "and as refused")
        (record,) = queue.workers()
        assert complaint in record.message and "\n" not in record.message
        assert running.worker.scorer_pids == []
        assert running.metrics.values[STATE, "refused"] == 1
        stats = queue.stats()
        assert (stats.backlog, stats.leased, stats.redeliveries) == (1, 0, 0)

        # Another learner, whose run is this worker's.
        open_term(queue, right, number=1)
        queue.put(1, 0, group_of(0, 1, 2, 3, term=1))
        assert results(queue, [0], term=1) == {0: [6.0, 7.0]}
        (record,) = queue.workers()
        assert (record.reward_digest, record.dataset_digest) == (
            right.reward_digest,
            right.dataset_digest,
        )


def _changed(spec: ScoringSpec, change: dict[str, Any]) -> ScoringSpec:
    match change:
        case {"golden": float(error)}:
            first, *rest = spec.golden
            rewards = (first.rewards[0] + error, *first.rewards[1:])
            return spec.model_copy(
                update={"golden": (first.model_copy(update={"rewards": rewards}), *rest)}
            )
        case {"scorer": int(threads)}:
            settings = spec.scorer.model_copy(update={"threads": threads})
            return spec.model_copy(update={"scorer": settings})
        case _:
            return spec.model_copy(update=change)


def test_a_new_learner_of_the_same_run_finds_the_scorers_warm(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    spec = by_token_spec(data, folder=str(tmp_path))
    open_term(queue, spec)
    for ordinal in range(2):
        queue.put(0, ordinal, group_of(ordinal, WAIT, ordinal, 3))
    with working(queue, data) as running:
        begun(tmp_path, 0)
        eventually(lambda: queue.stats().leased == 2, "the second group is fetched too")
        pids = running.worker.scorer_pids
        open_term(queue, spec, number=1)
        queue.put(1, 0, group_of(0, 1, 2, 3, term=1))
        eventually(lambda: running.metrics.counts[GROUPS, "stale"] == 1, "the second is dropped")
        let_go(tmp_path, 0)
        assert results(queue, [0], term=1) == {0: [6.0, 7.0]}
        assert running.worker.scorer_pids == pids
    assert running.metrics.counts[GROUPS, "stale"] == 2
    assert not (tmp_path / "begun-1").exists()
    assert running.metrics.counts[GROUPS, "accepted"] == 1
    assert queue.stats().results == 1


def test_a_learner_of_another_run_gets_scorers_of_its_own(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    with working(queue, data) as running:
        begun(tmp_path, 0)  # and is never let go
        old = running.worker.scorer_pids
        open_term(queue, by_token_spec(data, scale=2.0), number=1)
        queue.put(1, 0, group_of(0, 1, 2, 3, term=1))
        assert results(queue, [0], term=1) == {0: [12.0, 14.0]}
        assert not any(map(exists, old))
    assert not any(queue.stats().failures.values())


def test_what_was_scored_while_the_queue_was_away_is_committed_when_it_is_back(
    data: Path, tmp_path: Path
) -> None:
    queue = PassedOn(MemoryJobQueue())
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    with working(queue, data) as running:
        begun(tmp_path, 0)
        queue.spoiled = QueueUnavailable("connection refused")
        let_go(tmp_path, 0)
        eventually(lambda: running.metrics.values[SCORERS, "busy"] == 0, "the score")
        tried = queue.num_refused
        eventually(lambda: queue.num_refused >= tried + 3, "it tries again and again")
        queue.spoiled = None
        assert results(queue, [0]) == {0: [WAIT + 3.0, WAIT + 4.0]}
        queue.put(0, 1, group_of(1, 1, 2, 3))
        results(queue, [1])
    assert running.metrics.counts[GROUPS, "accepted"] == 2
    assert queue.stats().redeliveries == 0


def test_a_worker_that_is_drained_while_the_queue_is_away_ends_all_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_workers.worker._FLUSH_SECONDS", 0.3)
    queue = PassedOn(MemoryJobQueue())
    open_term(queue, by_token_spec(data, folder=str(tmp_path)))
    queue.put(0, 0, group_of(0, WAIT, 0, 3))
    with working(queue, data, drain_seconds=0.2) as running:
        begun(tmp_path, 0)
        queue.spoiled = QueueUnavailable("connection refused")
        running.worker.drain()
        running.join(seconds=10)
        assert running.exit_code == DRAINED


def test_a_queue_that_refuses_ends_the_worker_with_its_words(data: Path) -> None:
    queue = PassedOn(MemoryJobQueue())
    open_term(queue, by_token_spec(data))
    with working(queue, data) as running:
        running.eventually_is("ready")
        pids = running.worker.scorer_pids
        queue.spoiled = QueueRefused("wrong password")
        running.join()
        assert running.exit_code == QUEUE_REFUSED
        assert running.worker.message == "wrong password"
    assert not any(map(exists, pids))


def test_a_scorer_that_does_not_start_is_tried_again_after_a_pause(
    queue: JobQueue, data: Path, tmp_path: Path
) -> None:
    spec = spec_of(data, "by_token", {"folder": str(tmp_path), "crash_at_start": True})
    (tmp_path / "crash").touch()
    open_term(queue, spec)
    queue.put(0, 0, group_of(0, 1, 2, 3))
    with working(queue, data) as running:
        eventually(
            lambda: "exit code 3 while starting" in running.worker.message, "the reason is known"
        )
        assert running.worker.state == "starting"
        assert queue.stats().leased == 0
        (tmp_path / "crash").unlink()
        assert results(queue, [0]) == {0: [6.0, 7.0]}
        assert running.worker.message == ""
    assert running.metrics.counts[RESTARTS, "startup"] >= 1


def test_a_worker_whose_disk_went_away_gives_the_group_back_and_looks_again_later(
    queue: JobQueue, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_workers.worker.RECHECK_SECONDS", 0.5)
    open_term(queue, by_token_spec(data))
    queue.put(0, 0, group_of(0, UNPLUG, 2, 3))
    queue.put(0, 1, group_of(1, 1, 2, 3))
    with working(queue, data) as running:
        assert results(queue, range(2))[1] == [6.0, 7.0]
    counts = running.metrics.counts
    assert counts[RESTARTS, "unfit"] == 1
    assert counts[GROUPS, "given_back"] == 1 and counts[GROUPS, "failed"] == 0
    assert not any(queue.stats().failures.values())


def test_two_workers_share_the_work_and_give_the_same_bytes(queue: JobQueue, data: Path) -> None:
    open_term(queue, by_token_spec(data))
    for ordinal in range(40):
        queue.put(0, ordinal, group_of(ordinal, ordinal % 7, 2, 3))
    with working(queue, data, name="one") as one, working(queue, data, name="two") as two:
        for running in (one, two):
            running.eventually_is("ready")
        found = results(queue, range(40))
        assert found == {o: [o % 7 + 5.0, o % 7 + 6.0] for o in range(40)}
        again = {
            o: scored_group_from_bytes(r.scored or b"")
            for o, r in queue.results(0, range(40)).items()
        }
        assert [again[o].group.ordinal for o in range(40)] == list(range(40))
    accepted = [running.metrics.counts[GROUPS, "accepted"] for running in (one, two)]
    assert sum(accepted) == 40
