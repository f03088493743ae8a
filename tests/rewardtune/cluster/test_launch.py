"""A run on Ray: the same weights as in one process, whatever dies on the way."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.checkpoint import CheckpointError
from learner.ledger import Ledger
from learner.source import QueueSource
from reward_workers.scoring.reward import RewardFailed
from reward_workers.scoring.score import score_group
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.launch import tune_on_ray
from rewardtune.config.run_config import ConfigError, OperationsConfig, RunConfig
from rewardtune.policies.weights import pack_weights
from rewardtune.records import Group, Published, Score, ScoredGroup
from rewardtune.run import local
from rewardtune.run.assembly import assemble, data_order
from rewardtune.run.directory import RunDirectory
from rewardtune.run.local import tune
from rewardtune.run.run_seal import run_seal
from rewardtune.run.state import save_run
from rewardtune.run.tuning import TuningLoop
from rewardtune.transport.queue.connect import connect_queue
from rewardtune.transport.queue.job_queue import DeadLetter, Term
from rewardtune.transport.term import StaleTerm
from rewardtune.transport.weights.connect import connect_weights
from rewardtune.transport.wire import group_from_bytes
from tests.rewardtune.ray_run import DriverLog, config_of, final_state
from tests.rewardtune.tiny_run import SILENT, weight_digest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True, scope="module")
def _actors_find_the_tests() -> Iterator[None]:
    """Tasks of the tests are imported by reward workers too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def test_a_sampler_a_reward_worker_and_the_learner_are_killed_and_nothing_shows(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None
) -> None:
    victims = {3: "sampler", 5: "reward_worker", 8: "learner"}
    config = config_of(data, pretrained, tmp_path / "ray", num_each=2)

    def kill(driver: Driver, step: int) -> None:
        if (kind := victims.pop(step, None)) is not None:
            services = driver.status()["services"]
            os.kill(next(s["pid"] for s in services if s["kind"] == kind), signal.SIGKILL)
        elif step == 10:
            a_learner_of_an_earlier_term_can_do_no_harm(config)

    undisturbed = tune(config_of(data, pretrained, tmp_path / "local"), SILENT)
    log = DriverLog(kill)
    result = tune_on_ray(config, log, on_driver=log.take)
    assert result.is_finished
    assert victims == {}
    assert len([m for m in log.messages if "started again" in m]) == 3
    assert weight_digest(tmp_path / "ray/policy.safetensors") == weight_digest(
        undisturbed.directory / "policy.safetensors"
    )
    state = final_state(tmp_path / "ray")
    assert state["term"] == 1
    assert state["ledger"]["num_batches"] == 12
    assert state["ledger"]["invalid"] == state["ledger"]["skipped"] == []


def a_learner_of_an_earlier_term_can_do_no_harm(config: RunConfig) -> None:
    """One that was thought dead is back, beside the one that has taken over."""
    run_id = run_seal(config.operations.directory).run_id
    zombie = Term(number=0, spec=b"", capacity=2 * config.learner.batch_size, run_id=run_id)
    namespace = f"ray://rewardtune-{config.run_name}"
    queue = connect_queue(f"{namespace}/queue", run=config.run_name, lease_seconds=2)
    store = connect_weights(f"{namespace}/weights")
    weights = pack_weights(torch.nn.Linear(2, 2), dtype=torch.float32)
    with pytest.raises(StaleTerm):
        QueueSource(queue, zombie, patience_seconds=1).consumed(before=1000)
    with pytest.raises(StaleTerm):
        queue.put(zombie.number, 1000, b"")
    with pytest.raises(StaleTerm):
        store.publish(Published(zombie.number, 99), weights)
    run = RunDirectory(config.operations.directory, term=zombie.number, checkpoint=None)
    parts = assemble(config)
    source = QueueSource(queue, zombie, patience_seconds=1)
    loop = TuningLoop(parts, term=zombie.number, store=store, source=source)
    with pytest.raises(RuntimeError, match="another process has taken over"):
        save_run(parts, run, loop)


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        ("another seed", ConfigError, "holds another run, which differs in seed: 5 -> 6"),
        ("config.json", ConfigError, "config.json cannot be read"),
        ("checkpoints", CheckpointError, "every checkpoint in .* is damaged"),
    ],
)
def test_a_directory_that_cannot_be_gone_on_with_is_refused_before_anything_starts(
    data: Path, pretrained: Path, tmp_path: Path, damage: str, error: type[Exception], said: str
) -> None:
    directory = tmp_path / "run"
    tune(config_of(data, pretrained, directory, learner={"num_steps": 2}), SILENT)
    if damage == "config.json":
        (directory / damage).write_text("{")
    for state in directory.glob("checkpoints/*/state.json") if damage == "checkpoints" else ():
        state.write_text("{}")
    changes = {"seed": 6} if damage == "another seed" else {}
    before = sorted(directory.rglob("*"))
    log = DriverLog()
    with pytest.raises(error, match=said):
        tune_on_ray(
            config_of(data, pretrained, directory, learner={"num_steps": 2}, **changes),
            log,
            on_driver=log.take,
        )
    assert log.driver is None
    assert sorted(directory.rglob("*")) == before


@dataclass(frozen=True, slots=True)
class HalfScored:
    """A run whose task fails on image 7 and whose custom reward on image 8, on Ray and here."""

    config: RunConfig
    is_finished: bool
    letters: dict[int, list[DeadLetter]]
    """Of each image, by its id."""
    here: Path
    """Directory of the same run in one process."""

    @property
    def directory(self) -> Path:
        return self.config.operations.directory


CUSTOM = "tests.rewardtune.fails_on_eight:few_boxes"


@pytest.fixture(scope="module")
def half_scored(
    data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> HalfScored:
    config = config_of(
        data,
        pretrained,
        tmp_path_factory.mktemp("half") / "run",
        task="tests.rewardtune.refuses_one",
        reward={"sum": {"task": 1.0, "few": 0.1}, "parts": {"few": {"use": CUSTOM}}},
        learner={"num_steps": 4},
    )
    letters: dict[int, list[DeadLetter]] = defaultdict(list)
    parts = assemble(config)

    def look(driver: Driver, step: int) -> None:
        for letter in driver.dead_letters() if step == 4 else ():
            example = parts.train.example(group_from_bytes(letter.body).example)
            letters[example.image_id].append(letter)

    log = DriverLog(look)
    is_finished = tune_on_ray(config, log, on_driver=log.take).is_finished
    with pytest.MonkeyPatch.context() as patch:
        # In one process somebody else says that groups on which the task fails are not valid.
        patch.setattr(local, "score_group", _score_or_invalid)
        elsewhere = config.model_copy(update={"operations": _elsewhere(config)})
        here = tune(elsewhere, SILENT).directory
    return HalfScored(config, is_finished, letters, here)


def test_what_nobody_can_score_is_invalid_and_not_a_reward_of_nothing(
    half_scored: HalfScored,
) -> None:
    assert half_scored.is_finished
    letters = half_scored.letters
    ledger = Ledger.from_state(final_state(half_scored.directory)["ledger"])
    order = data_order(assemble(half_scored.config))
    is_seven = [
        group_from_bytes(letter.body).example == order.entry(letter.ordinal).example
        for letter in letters[7]
    ]
    every = sorted(letter.ordinal for each in letters.values() for letter in each)
    assert ledger.invalid == every and letters[7] != []
    assert all(is_seven)
    assert len({order.entry(letter.ordinal).example for letter in letters[7]}) == 1
    assert {failure.message for letter in letters[7] for failure in letter.failures} == {
        "RuntimeError: image 7 is beyond me"
    }
    num_lost = len(ledger.invalid) + len(ledger.skipped)
    num_admitted = 4 * half_scored.config.learner.batch_size
    assert ledger.num_admitted == num_admitted == ledger.num_trained + num_lost
    assert final_state(half_scored.here)["ledger"] == ledger.to_state()
    assert weight_digest(half_scored.directory / "policy.safetensors") == weight_digest(
        half_scored.here / "policy.safetensors"
    )


def test_a_custom_reward_that_fails_on_one_image_gives_the_weights_of_a_run_in_one_process(
    half_scored: HalfScored,
) -> None:
    assert half_scored.is_finished
    letters = half_scored.letters
    assert letters.keys() == {7, 8} and letters[8] != []
    for letter in letters[8]:
        for failure in letter.failures:
            assert failure.message.startswith(f"reward 'few' ({CUSTOM}), image ")
            assert failure.message.endswith("(id 8): LookupError: image 8 is beyond me")
    assert (half_scored.directory / "code/tests/rewardtune/fails_on_eight.py").is_file()
    ledger = final_state(half_scored.directory)["ledger"]
    assert set(ledger["invalid"]) >= {letter.ordinal for letter in letters[8]}
    assert final_state(half_scored.here)["ledger"] == ledger
    assert weight_digest(half_scored.directory / "policy.safetensors") == weight_digest(
        half_scored.here / "policy.safetensors"
    )


def _score_or_invalid(group: Group, **told: Any) -> ScoredGroup:
    try:
        return score_group(group, **told)
    except RewardFailed:
        raise  # which it knows itself
    except RuntimeError:
        nothing_S = np.full(len(group.tokens_ST), np.nan)
        return ScoredGroup(group=group, score=Score(reward_S=nothing_S, is_valid=False))


def _elsewhere(config: RunConfig) -> OperationsConfig:
    directory = config.operations.directory
    return config.operations.model_copy(
        update={"directory": directory.with_name(f"{directory.name}-elsewhere")}
    )
