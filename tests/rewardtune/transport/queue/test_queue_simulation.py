"""Queue and ledger under faults, and that the simulation notices when a rule is broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewardtune.transport.queue.job_queue import CommitOutcome, Job, Result, Term
from rewardtune.transport.queue.queue_state import QueueState
from tests.faults.simulated_run import run_schedule
from tests.faults.simulation import main, simulate
from tests.faults.watched_queue import Violation

SEEDS = range(2000)


def test_two_thousand_schedules_of_faults_break_no_promise() -> None:
    reports: list[str] = []
    result = simulate(SEEDS, report=reports.append)
    assert reports == []
    assert result["violations"] == 0
    # It is no test if nothing goes wrong in it.
    happened = (
        *("kills", "wipes", "redeliveries", "duplicates", "stale", "invalid", "redraws"),
        *("lies", "refused"),
    )
    counts = {name: result[name] for name in happened}
    assert all(isinstance(count, int) and count > 100 for count in counts.values()), counts


def test_a_schedule_follows_from_its_seed_alone() -> None:
    for seed in range(30):
        told: tuple[list[str], list[str]] = ([], [])
        outcomes = [run_schedule(seed, tell=events.append) for events in told]
        assert outcomes[0] == outcomes[1] == run_schedule(seed)
        assert told[0] == told[1]
        assert len(told[0]) > 20


class LastWriterWins(QueueState):
    def commit(self, job: Job, scored: bytes, *, worker: str = "") -> CommitOutcome:
        outcome = super().commit(job, scored, worker=worker)
        if outcome is CommitOutcome.DUPLICATE:
            self._settle(job.ordinal, Result(scored=scored, seal=job.seal))
        return outcome


class StoresAndLetsTheJobStand(QueueState):
    """A commit in two steps, whose process dies between them."""

    def commit(self, job: Job, scored: bytes, *, worker: str = "") -> CommitOutcome:
        entry = self._entries.get(job.ordinal)
        outcome = super().commit(job, scored, worker=worker)
        if entry is not None and outcome is CommitOutcome.ACCEPTED:
            self._entries[job.ordinal] = entry
        return outcome


class DropsTheJobAndStoresNothing(QueueState):
    """The same steps the other way round."""

    def _settle(self, ordinal: int, result: Result) -> None:
        if ordinal % 3 == 0 and ordinal in self._entries:
            self._remove(self._entries[ordinal])
        else:
            super()._settle(ordinal, result)


class AnybodyOwnsEverything(QueueState):
    def _owned(self, job: Job, worker: str) -> Any:
        return self._entries.get(job.ordinal) if self._is_of_term(job) else None


class TakesCommitsOfOlderTerms(QueueState):
    def _is_of_term(self, job: Job) -> bool:
        return self._term is not None


class TakesCommitsOfConsumedOrdinals(QueueState):
    def _is_awaited(self, job: Job) -> bool:
        return self._is_of_term(job)


class KeepsWhatIsOfOlderTerms(QueueState):
    def _forget_term(self) -> None:
        if self._term is None:
            super()._forget_term()


class LetsLeasesEndTooSoon(QueueState):
    def _release_expired(self, now: float) -> None:
        super()._release_expired(now + self._limits.lease_seconds / 2)


class NeverLetsALeaseEnd(QueueState):
    def _release_expired(self, now: float) -> None:
        pass


class CallsAFailureAScore(QueueState):
    def _settle(self, ordinal: int, result: Result) -> None:
        super()._settle(ordinal, Result(scored=result.scored or result.dead, seal=result.seal))


class QueuesWhatHasItsResult(QueueState):
    def put(self, term: int, ordinal: int, body: bytes, *, now: float, seal: bytes = b"") -> bool:
        self.check_term(term)
        self._results.pop(ordinal, None)
        return super().put(term, ordinal, body, now=now, seal=seal)


class CountsWhatIsGivenBack(QueueState):
    def _end_lease(self, entry: Any) -> None:
        super()._end_lease(entry)
        entry.deliveries += not entry.failures


class NeverMovesItsFrontier(QueueState):
    def _move_frontier(self, before: int) -> None:
        pass


class ForgetsOnReopening(QueueState):
    def open_term(self, term: Term, *, frontier: int, afresh: bool = False) -> None:
        self._term = None
        super().open_term(term, frontier=frontier)


class KeepsWhatIsRefused(QueueState):
    def refuse(self, term: int, ordinal: int, *, worker: str, keep_group: bool, now: float) -> None:
        self.check_term(term)


class LosesTheSeal(QueueState):
    def commit(self, job: Job, scored: bytes, *, worker: str = "") -> CommitOutcome:
        return super().commit(replace(job, seal=b""), scored, worker=worker)


class NamesNothingMissing(QueueState):
    def missing(self, term: int, ordinals: Sequence[int]) -> list[int]:
        self.check_term(term)
        return []


@pytest.mark.parametrize(
    "rules",
    [
        LastWriterWins,
        StoresAndLetsTheJobStand,
        DropsTheJobAndStoresNothing,
        AnybodyOwnsEverything,
        TakesCommitsOfOlderTerms,
        TakesCommitsOfConsumedOrdinals,
        KeepsWhatIsOfOlderTerms,
        LetsLeasesEndTooSoon,
        NeverLetsALeaseEnd,
        CallsAFailureAScore,
        QueuesWhatHasItsResult,
        CountsWhatIsGivenBack,
        NeverMovesItsFrontier,
        ForgetsOnReopening,
        KeepsWhatIsRefused,
        LosesTheSeal,
        NamesNothingMissing,
    ],
)
def test_a_broken_rule_is_noticed_and_its_schedule_named(rules: type[QueueState]) -> None:
    reports: list[str] = []
    result = simulate(range(100), rules=rules, report=reports.append)
    assert result["violations"] == len(reports) > 0
    failing = result["failing_seeds"]
    assert isinstance(failing, list)
    assert f"python -m tests.faults.simulation --seed {failing[0]}" in reports[0]
    with pytest.raises(Violation):
        run_schedule(failing[0], rules=rules)


def test_the_command_leaves_a_line_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "simulation.jsonl"
    for first in (0, 5):
        with pytest.raises(SystemExit) as ended:
            main(["--schedules", "5", "--first-seed", str(first), "--output", str(output)])
        assert ended.value.code == 0
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(line["schedules"], line["first_seed"]) for line in lines] == [(5, 0), (5, 5)]
    for field in ("violations", "events", "kills", "seconds", "machine"):
        assert field in lines[0]
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "3"])
    assert ended.value.code == 0
    assert "learner-0" in capsys.readouterr().out
