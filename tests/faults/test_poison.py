"""A live queue full of forgeries: the weights of an undisturbed run, every forgery counted.

``python -m tests.faults.poison`` does the same with 10,000 of each (evidence/faults/poison.jsonl).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.poison import FORGER, Attack, attack, left_alone, memory, on_ray, on_redis
from tests.faults.poisoned_run import Ended, PoisonedRun

NUM_STEPS = 12


@dataclass(frozen=True, slots=True)
class Calm:
    run: PoisonedRun
    ended: Ended


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    run = PoisonedRun(tmp_path_factory.mktemp("poison"), num_steps=NUM_STEPS)
    return Calm(run, left_alone(run))


def forged(calm: Calm, make: Callable[[], Any], **counts: int) -> Attack:
    made = attack(calm.run, calm.ended, make, **counts)
    assert made.broken == []
    assert made.forged.error == ""
    assert made.forged.digest == made.calm.digest
    assert made.forged.num_foreign == made.forged.num_invalid == 0
    return made


def test_forged_results_and_jobs_in_memory(calm: Calm) -> None:
    made = forged(calm, memory, entries=30, results=60)
    assert made.forged.stats is not None
    assert made.forged.stats.refused[FORGER] == made.counts["results_accepted"] == 60
    assert made.counts["foreign_jobs"] > 0


@pytest.mark.alone
def test_forged_results_and_jobs_on_ray(calm: Calm, ray_session: None) -> None:
    made = forged(calm, lambda: on_ray("forged"), entries=20, results=40)
    assert made.forged.stats is not None
    assert made.forged.stats.refused[FORGER] == made.counts["results_accepted"] == 40


def test_forged_results_and_entries_on_redis(calm: Calm, tmp_path: Path) -> None:
    made = forged(calm, lambda: on_redis(tmp_path / "redis"), entries=60, results=60)
    assert made.forged.stats is not None
    assert made.forged.stats.refused == {FORGER: made.counts["results_accepted"]}
    assert made.counts["results_accepted"] == 60
    assert made.forged.stats.bad_entries == 60


def test_commands_sent_past_the_queue_end_in_a_redraw_or_a_refusal(
    calm: Calm, tmp_path: Path
) -> None:
    made = forged(calm, lambda: on_redis(tmp_path / "redis"), commands=60)
    assert made.counts["commands_done"] > 30
    assert made.forged.num_redraws > 0


def test_a_neighbours_password_opens_nothing_of_this_run(calm: Calm, tmp_path: Path) -> None:
    made = forged(calm, lambda: on_redis(tmp_path / "redis", forger="another"), commands=60)
    assert made.counts["commands_denied"] == 60
    assert made.forged.num_redraws == 0
