"""What the driver does about services that die, a queue that goes away, and people who steer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from learner.ranks import RankLost
from rewardtune.cluster.driver import driver as driver_module
from rewardtune.cluster.driver.cluster import ServiceDied
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.driver.fleet import Placement, RunFailed
from rewardtune.run.result import RunResult
from rewardtune.run.run_state import RunState, read_run_state
from rewardtune.transport.queue.job_queue import QueueFull, QueueUnavailable
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from rewardtune.transport.telemetry.metric_table import Role
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights.weight_store import (
    DamagedWeights,
    WeightsNotFound,
    WeightsUnavailable,
)
from tests.rewardtune.scripted_cluster import Fault, ScriptedCluster
from tests.rewardtune.tiny_run import tiny_tune

NUM_STEPS, BATCH, MICRO = 6, 8, 4


@pytest.fixture(autouse=True)
def _a_look_at_the_queue_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "TICK_SECONDS", 0.0)


class _Log:
    """Keeps what it hears, and calls a function after each step."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.messages: list[str] = []
        self.evaluations: list[int] = []
        self.on_step: Callable[[int], None] = lambda step: None
        self.on_message: Callable[[str], None] = lambda text: None

    def step(self, record: Mapping[str, float]) -> None:
        self.steps.append(int(record["step"]))
        self.on_step(int(record["step"]))

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        self.evaluations.append(step)

    def message(self, text: str) -> None:
        self.messages.append(text)
        self.on_message(text)

    def close(self) -> None: ...


class _Run:
    """One run over a scripted cluster."""

    def __init__(
        self, directory: Path, *, has_holdout: bool = False, num_workers: int = 2, **changes: Any
    ) -> None:
        config = tiny_tune(directory / "data", directory / "policy", directory / "run", **changes)
        if not has_holdout:
            data = config.data.model_copy(update={"holdout": None})
            config = config.model_copy(update={"data": data})
        self.log = _Log()
        self.queue = MemoryJobQueue()
        self.cluster = ScriptedCluster(config, self.queue)
        self.driver = Driver(
            config,
            self.log,
            cluster=self.cluster,
            queue=self.queue,
            placement=Placement(
                settings="",
                secret_settings="",
                num_learners=config.cluster.learners,
                num_samplers=2,
                num_reward_workers=num_workers,
                num_cpus={},
                num_gpus={},
            ),
        )

    def go(self, fault: Fault | None = None) -> RunResult:
        if fault is not None:
            self.cluster.fault = fault
        result = self.driver.run(lambda: False)
        assert self.cluster.num_alive == 0
        return result


def once(name: str, method: str, error: Exception, *, number: int = 3) -> Fault:
    def fault(service: str, called: str, so_often: int) -> Exception | None:
        is_it = service == name and called == method and so_often == number
        return error if is_it else None

    return fault


def learner_dies_once(run: _Run, *, after: list[int]) -> Fault:
    deaths = [ServiceDied("killed")]

    def fault(service: str, method: str, number: int) -> Exception | None:
        is_time = method == "step" and run.cluster.taken == after
        return deaths.pop() if is_time and deaths else None

    return fault


@pytest.mark.parametrize("depth", [0, 1])
def test_every_micro_batch_is_drawn_once_with_the_version_of_its_batch(
    tmp_path: Path, depth: int
) -> None:
    run = _Run(tmp_path, depth=depth)
    assert run.go().is_finished
    assert run.log.steps == list(range(1, NUM_STEPS + 1))
    assert sorted(run.cluster.drawn, key=lambda draw: draw[2]) == [
        (0, max(0, first // BATCH - depth), first) for first in range(0, NUM_STEPS * BATCH, MICRO)
    ]


def test_what_a_run_needs_is_known_once_something_was_scored_and_learned(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    status = run.driver.status()
    assert status["depth_required"] is status["reward_workers_required"] is None
    run.go()
    status = run.driver.status()
    # Nothing takes any time here.
    assert (status["depth"], status["depth_required"]) == (1, 1)
    assert status["reward_workers_required"] == 1


@pytest.mark.parametrize(
    ("error", "restarts"),
    [
        (ServiceDied("killed"), 1),
        (DamagedWeights("not as published"), 1),
        (QueueUnavailable("away"), 0),
        (QueueFull("no room"), 0),
        (WeightsUnavailable("away"), 0),
        (WeightsNotFound("not there"), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_draw_that_failed_is_done_again(tmp_path: Path, error: Exception, restarts: int) -> None:
    run = _Run(tmp_path)
    assert run.go(once("sampler-0", "draw", error)).is_finished
    status = run.driver.status()
    assert run.log.steps == list(range(1, NUM_STEPS + 1))
    assert status["redraws"] == 1
    assert {s["name"]: s["restarts"] for s in status["services"]}["sampler-0"] == restarts


def test_while_the_queue_is_away_nobody_draws_in_a_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "TICK_SECONDS", 0.1)
    run = _Run(tmp_path)

    def away(service: str, method: str, number: int) -> Exception | None:
        is_away = method == "draw" and number <= 2
        return QueueUnavailable("away") if is_away else None

    assert run.go(away).is_finished
    assert run.driver.status()["redraws"] == 4
    assert len([m for m in run.log.messages if "away" in m]) == 4


def test_a_service_that_meets_no_queue_at_its_start_begins_later(tmp_path: Path) -> None:
    run = _Run(tmp_path)

    def away(service: str, method: str, number: int) -> Exception | None:
        is_away = method in ("begin", "join") and number <= 2
        return QueueUnavailable("away") if is_away else None

    assert run.go(away).is_finished
    # The learner says so for each of its two calls.
    assert len([m for m in run.log.messages if "cannot begin yet: away" in m]) == 6 * 2
    assert run.driver.status()["term"] == 0


def test_the_learner_goes_on_from_its_checkpoint_in_another_term(tmp_path: Path) -> None:
    run = _Run(tmp_path, operations={"checkpoint_every": 2})
    assert run.go(learner_dies_once(run, after=[1, 2, 3])).is_finished
    assert run.cluster.taken == [1, 2, 3, 3, 4, 5, 6]
    drawn_twice = {draw[2] for draw in run.cluster.drawn if draw[0] == 1} & {
        draw[2] for draw in run.cluster.drawn if draw[0] == 0
    }
    # From the checkpoint on, as far as the depth had let the dead one's term come.
    assert drawn_twice == set(range(2 * BATCH, 5 * BATCH, MICRO))
    assert len({draw[1:] for draw in run.cluster.drawn}) == NUM_STEPS * BATCH // MICRO


GROUP: dict[str, Any] = {"learner": {"gradient_shards": 2}, "cluster": {"learners": 2}}


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("begin", ServiceDied("killed")),
        ("join", ServiceDied("killed")),
        ("join", RankLost("did not meet the others")),
        ("step", ServiceDied("killed")),
        ("step", RankLost("waited 60 s in vain")),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("name", ["learner", "learner-1"])
def test_when_a_rank_is_gone_all_start_again_from_the_checkpoint(
    tmp_path: Path, name: str, method: str, error: Exception
) -> None:
    run = _Run(tmp_path, operations={"checkpoint_every": 2}, **GROUP)
    number = 4 if method == "step" else 1
    assert run.go(once(name, method, error, number=number)).is_finished
    status = run.driver.status()
    assert status["term"] == (0 if (name, method) == ("learner", "begin") else 1)
    assert run.log.steps[-1] == NUM_STEPS
    # One restart of the learner, of which each rank is a new process.
    ranks = [s for s in run.cluster.services if s.kind in ("Learner", "LearnerRank")]
    assert [s.name for s in ranks] == ["learner", "learner-1"] * 2
    messages = [m for m in run.log.messages if "started again" in m]
    assert len(messages) == 1 and messages[0].startswith("learner died and is started again: ")
    assert str(error) in messages[0]
    assert ("learner-1: " in messages[0]) == (name == "learner-1")
    # The learner itself may have taken its step before another rank was found to be gone.
    assert run.cluster.taken == sorted(run.cluster.taken) or method == "step"
    assert run.cluster.started_from[-1] == ("checkpoint-2" if method == "step" else None)


def test_ranks_of_an_earlier_start_say_nothing_any_more(tmp_path: Path) -> None:
    run = _Run(tmp_path, **GROUP)

    def both(service: str, method: str, number: int) -> Exception | None:
        if method != "step" or number != 3:
            return None
        return RankLost("rank 0 lost another") if service == "learner" else ServiceDied("killed")

    assert run.go(both).is_finished
    assert run.driver.status()["term"] == 1
    assert len([m for m in run.log.messages if "started again" in m]) == 1


def test_a_rank_that_always_dies_ends_the_run(tmp_path: Path) -> None:
    run = _Run(tmp_path, **GROUP)

    def always(service: str, method: str, number: int) -> Exception | None:
        is_it = service == "learner-1" and method == "step"
        return ServiceDied("out of memory") if is_it else None

    with pytest.raises(RunFailed, match=r"learner died 6 times .* learner-1: out of memory"):
        run.go(always)
    assert run.cluster.num_alive == 0


def test_an_error_of_a_rank_ends_the_run(tmp_path: Path) -> None:
    run = _Run(tmp_path, **GROUP)
    with pytest.raises(ValueError, match="no such image"):
        run.go(once("learner-1", "step", ValueError("no such image")))
    assert run.cluster.num_alive == 0


def test_ranks_are_listed_and_scraped_each_as_what_it_is(tmp_path: Path) -> None:
    run = _Run(tmp_path, **GROUP)
    seen: list[tuple[str, str]] = []
    roles: set[str] = set()

    def look(step: int) -> None:
        seen[:] = [(s["name"], s["kind"]) for s in run.driver.status()["services"]]
        roles.update(target.role for target in run.driver.targets())

    run.log.on_step = look
    assert run.go().is_finished
    assert seen[:2] == [("learner", "learner"), ("learner-1", "learner_rank")]
    assert "learner_rank" in roles <= set(Role)


def test_a_step_that_could_not_be_published_is_taken_again(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    assert run.go(once("learner", "step", WeightsUnavailable("away"))).is_finished
    assert run.driver.status()["term"] == 1


def test_a_learner_that_always_dies_at_one_step_ends_the_run(tmp_path: Path) -> None:
    run = _Run(tmp_path, operations={"checkpoint_every": 2})

    def always(service: str, method: str, number: int) -> Exception | None:
        is_time = method == "step" and run.cluster.version == 3
        return ServiceDied("out of memory") if is_time else None

    with pytest.raises(RunFailed, match="learner died 6 times .* out of memory"):
        run.go(always)
    assert run.cluster.taken == [1, 2, *[3] * 6]


def test_a_learner_that_was_taken_over_ends_the_run(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    with pytest.raises(StaleTerm, match="taken over"):
        run.go(once("learner", "step", StaleTerm("term 0 was taken over")))


def test_reward_workers_may_die_often_if_they_score_in_between(tmp_path: Path) -> None:
    run = _Run(tmp_path, num_workers=1, learner={"num_steps": 12})
    deaths = 0

    def kill(step: int) -> None:
        nonlocal deaths
        # Not before the driver has seen that this one scores.
        if run.driver.status()["reward_workers"]:
            deaths += 1
            for service in run.cluster.services:
                service.is_dead = service.is_dead or service.kind == "RewardWorker"

    run.log.on_step = kill
    assert run.go().is_finished
    assert deaths > 6


def test_reward_workers_that_die_before_they_score_end_the_run(tmp_path: Path) -> None:
    def always(service: str, method: str, number: int) -> Exception | None:
        return ServiceDied("no such task") if method == "run" else None

    run = _Run(tmp_path)
    with pytest.raises(RunFailed, match=r"reward-worker-\d died 6 times .* no such task"):
        run.go(always)


def test_a_reward_worker_that_somebody_drained_is_replaced(tmp_path: Path) -> None:
    run = _Run(tmp_path)

    def drain(step: int) -> None:
        if step == 2:
            first = next(s for s in run.cluster.services if s.kind == "RewardWorker")
            first.is_drained = True

    run.log.on_step = drain
    assert run.go().is_finished
    workers = [s for s in run.driver.status()["services"] if s["kind"] == "reward_worker"]
    assert {worker["name"] for worker in workers} >= {"reward-worker-1"}
    assert {worker["name"] for worker in workers}.isdisjoint({"reward-worker-0"})


def test_too_many_invalid_groups_pause_the_run_until_somebody_decides(tmp_path: Path) -> None:
    run = _Run(tmp_path, learner={"num_steps": 40})
    run.cluster.fails = lambda ordinal: ordinal >= 2 * BATCH

    def decide(text: str) -> None:
        if "paused" in text:
            assert run.driver.status()["state"] == "paused"
            run.driver.drain()

    run.log.on_message = decide
    assert not run.go().is_finished
    # Two good batches, then three of the window of four.
    assert run.log.steps == [1, 2, 3, 4, 5]
    assert run.cluster.saved == 5
    letters = [letter.ordinal for letter in run.driver.dead_letters()]
    assert letters[: 3 * BATCH] == list(range(2 * BATCH, 5 * BATCH))


def test_a_drain_ends_a_run_whose_learner_cannot_begin(tmp_path: Path) -> None:
    run = _Run(tmp_path)

    def away(service: str, method: str, number: int) -> Exception | None:
        if service == "learner" and number == 3:
            run.driver.drain()
        return QueueUnavailable("away") if service == "learner" else None

    assert not run.go(away).is_finished
    assert run.driver.status()["state"] == "drained"


def test_a_run_tells_how_it_ended(tmp_path: Path) -> None:
    run = _Run(tmp_path)
    seen: list[RunState | None] = []
    run.log.on_step = lambda step: seen.append(read_run_state(tmp_path / "run"))
    run.go()
    assert seen[1] is not None and seen[1].state == "running"
    told = read_run_state(tmp_path / "run")
    assert told is not None and told.line == "finished at step 6 of 6"
    assert run.driver.status()["state"] == "finished"


@pytest.mark.parametrize("for_restart", [False, True])
def test_a_drain_whose_machine_goes_away_fails_once_the_checkpoint_is_written(
    tmp_path: Path, for_restart: bool
) -> None:
    run = _Run(tmp_path)

    def drain(step: int) -> None:
        if step == 3:
            run.driver.drain(for_restart=for_restart)

    run.log.on_step = drain
    if for_restart:
        with pytest.raises(RunFailed, match="goes away: stopped at step 3 of 6 with a checkpoint"):
            run.go()
    else:
        assert not run.go().is_finished
        told = read_run_state(tmp_path / "run")
        assert told is not None and told.line == "drained at step 3 of 6"
    assert run.cluster.num_alive == 0


def test_who_drained_first_says_how_it_ends(tmp_path: Path) -> None:
    """A run that its operator drained is not started again because its machine goes too."""
    run = _Run(tmp_path)

    def drain_twice(step: int) -> None:
        if step == 3:
            run.driver.drain()
            run.driver.drain(for_restart=True)

    run.log.on_step = drain_twice
    assert not run.go().is_finished


def test_a_drain_does_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    run = _Run(tmp_path, has_holdout=True)
    run.log.on_step = lambda step: run.driver.drain() if step == 2 else None
    assert not run.go().is_finished
    assert run.cluster.measured == []
    assert run.cluster.saved >= 2


def test_the_last_policy_is_measured_before_the_run_ends(tmp_path: Path) -> None:
    run = _Run(tmp_path, has_holdout=True)
    run.log.on_step = lambda step: run.cluster.evaluations_may_end.set() if step == 6 else None
    assert run.go().is_finished
    assert run.log.evaluations == [0, 6]
    assert run.cluster.measured == ["0", "6"]


def test_a_policy_that_waits_to_be_measured_outlives_the_learners_restart(tmp_path: Path) -> None:
    run = _Run(
        tmp_path,
        has_holdout=True,
        evaluation={"every_steps": 2},
        operations={"checkpoint_every": 100},
        learner={"num_steps": 4},
    )

    run.log.on_step = lambda step: run.cluster.evaluations_may_end.set() if step == 4 else None
    # By then version 0 is being measured, and is offered once more.
    assert run.go(learner_dies_once(run, after=[1, 2])).is_finished
    assert run.cluster.taken == [1, 2, 1, 2, 3, 4]
    assert run.cluster.measured == ["0", "4"]


def test_a_queue_that_never_has_room_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "TICK_SECONDS", 0.01)
    run = _Run(tmp_path)

    def always(service: str, method: str, number: int) -> Exception | None:
        return QueueFull("ordinal 41 was put") if method == "draw" else None

    with pytest.raises(QueueFull, match="ordinal 41"):
        run.go(always)
