"""Where groups are, in the course of a real draw table and a real queue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardtune.cluster.driver.draw_table import DrawTable
from rewardtune.cluster.driver.pace import Pace, pace
from rewardtune.cluster.driver.whereabouts import Whereabouts, find_group
from rewardtune.config.run_config import RunConfig
from rewardtune.transport.queue.job_queue import Failure, FailureKind, QueueLimits, Term
from rewardtune.transport.queue.memory_queue import MemoryJobQueue
from tests.rewardtune.tiny_run import tiny_tune

TERM = 2
LIMITS = QueueLimits(same_exception=1)


class Scene:
    """A run of 6 batches of 8 groups, micro-batches of 4, depth 1, at version 0."""

    def __init__(self, directory: Path) -> None:
        data = directory / "data"
        self.config: RunConfig = tiny_tune(data, directory / "p", directory / "run")
        self.version = 0
        self.table = DrawTable(
            batch_size=8,
            micro_batch=4,
            num_batches=6,
            drawn_with=self.config.drawn_with,
            depth=1,
        )
        self.table.begin(version=0)
        self.queue = MemoryJobQueue(LIMITS)
        self.queue.open_term(Term(number=TERM, spec=b"", capacity=16), frontier=0)
        self.skipped: frozenset[int] = frozenset()

    def where(self, ordinal: int) -> str:
        found = find_group(
            ordinal,
            self.config,
            version=self.version,
            term=TERM,
            table=self.table,
            queue=self.queue,
            skipped_batches=self.skipped,
        )
        assert found.ordinal == ordinal and found.batch == ordinal // 8
        return found.whereabouts.value

    def draw(self) -> None:
        draw = self.table.next()
        assert draw is not None
        for ordinal in draw.ordinals:
            self.queue.put(TERM, ordinal, b"group")
        self.table.done(draw)

    def lease(self, count: int) -> None:
        self.jobs = self.queue.lease("w", reward_digest="d", max_jobs=count, timeout_seconds=0)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_group_is_followed_from_draw_to_weights(scene: Scene) -> None:
    assert scene.where(0) == "wanted"
    first = scene.table.next()
    assert first is not None
    assert [scene.where(o) for o in (0, 3, 4, 15, 16)] == [
        "being_drawn",
        "being_drawn",
        "wanted",
        "wanted",
        "not_due",
    ]
    for ordinal in first.ordinals:
        scene.queue.put(TERM, ordinal, b"group")
    scene.table.done(first)
    assert scene.where(0) == "queued"
    scene.lease(1)
    assert scene.where(0) == "queued_or_leased"
    scene.queue.commit(scene.jobs[0], "w", b"scored")
    assert scene.where(0) == "scored"
    scene.lease(4)
    assert scene.where(1) == "leased"
    failed = Failure(FailureKind.EXCEPTION, "boom")
    scene.queue.fail(scene.jobs[0], "w", failed)
    assert scene.where(1) == "invalid"
    scene.queue.consume(TERM, before=8)
    scene.table.published(1)
    scene.version = 1
    assert [scene.where(o) for o in (0, 1, 7)] == ["trained", "invalid", "trained"]
    assert scene.where(16) == "wanted"


def test_a_group_that_fell_out_of_the_queue_is_missing(scene: Scene) -> None:
    scene.draw()
    scene.queue = MemoryJobQueue(LIMITS)
    scene.queue.open_term(Term(number=TERM, spec=b"", capacity=16), frontier=0)
    assert scene.where(2) == "missing"


def test_the_groups_of_a_batch_that_moved_no_weight_are_skipped(scene: Scene) -> None:
    scene.version, scene.skipped = 2, frozenset({1})
    assert [scene.where(o) for o in (7, 8, 15)] == ["trained", "skipped", "skipped"]


def test_what_earlier_starts_could_not_score_stands_in_the_checkpoint(scene: Scene) -> None:
    folder = scene.config.operations.directory / "checkpoints" / "checkpoint-00000002"
    folder.mkdir(parents=True)
    ledger = {"batch_size": 8, "num_batches": 2, "invalid": [5], "skipped": [8]}
    (folder / "state.json").write_text(json.dumps({"ledger": ledger}))
    (folder / "manifest.json").touch()
    scene.version = 2
    assert [scene.where(o) for o in (4, 5, 8)] == ["trained", "invalid", "skipped"]


def test_what_is_no_group_of_the_run_is_said_to_be_none(scene: Scene) -> None:
    assert [scene.where(o) for o in (47, 48)] == ["not_due", Whereabouts.BEYOND_THE_END.value]
    with pytest.raises(ValueError, match="got -1"):
        scene.where(-1)


def test_the_pace_of_a_run_is_the_mean_of_its_steps() -> None:
    assert pace([]) == Pace()
    steps = [
        {"step": 1.0, "seconds": 1.0, "seconds_wait": 0.5, "seconds_learn": 0.5},
        {"step": 2.0, "seconds": 3.0, "seconds_wait": 0.5, "seconds_learn": 2.5},
    ]
    assert pace(steps) == Pace(steps_per_second=0.5, phases={"learn": 1.5, "wait": 0.5})
