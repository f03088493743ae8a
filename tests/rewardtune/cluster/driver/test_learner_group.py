"""A learner of two ranks on Ray: the bytes of one rank, whichever of them dies on the way."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from learner.checkpoint import load_checkpoint
from learner.config import AdafactorConfig
from learner.ledger import Ledger
from learner.not_finite import NotFinite
from rewardtune.cluster.driver.driver import Driver
from rewardtune.cluster.launch import tune_on_ray
from rewardtune.config.run_config import ConfigError, RunConfig
from rewardtune.run.local import tune
from tests.rewardtune.ray_run import DriverLog, config_of, final_state
from tests.rewardtune.tiny_run import (
    SILENT,
    tiny_tune,
    weight_digest,
)

pytestmark = pytest.mark.alone

NUM_STEPS = 8
POLICY = "policy.safetensors"


@pytest.fixture(scope="module")
def undisturbed(
    data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Digest of the final weights of one process, by depth."""
    root = tmp_path_factory.mktemp("undisturbed")
    digests = []
    for depth in (0, 1):
        run = tune(group_config(data, pretrained, root / str(depth), depth=depth), SILENT)
        digests.append(weight_digest(run.directory / POLICY))
    one_shard = group_config(data, pretrained, root / "one", depth=1, gradient_shards=1, learners=1)
    others = weight_digest(tune(one_shard, SILENT).directory / POLICY)
    assert len({*digests, others}) == 3, "two shards, and each depth, must show in the weights"
    return digests


def group_config(
    data: Path,
    pretrained: Path,
    directory: Path,
    *,
    depth: int,
    gradient_shards: int = 2,
    learners: int = 2,
) -> RunConfig:
    # Of two micro-batches a sum has one order, whatever the shards.
    shards = {"num_steps": NUM_STEPS, "gradient_shards": gradient_shards, "micro_batch": 2}
    return config_of(data, pretrained, directory, learners=learners, depth=depth, learner=shards)


def services(driver: Driver) -> dict[str, dict[str, Any]]:
    return {service["name"]: service for service in driver.status()["services"]}


def wait_until_gone(pids: set[int], *, seconds: float = 30.0) -> None:
    """Ray kills without waiting."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_there(pid)]:
        assert time.monotonic() < deadline, f"processes {left} have outlived their run"
        time.sleep(0.1)


def is_there(pid: int) -> bool:
    """And not only as a name that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_rank_on_ray_gives_the_weights_of_one_process(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None, undisturbed: list[str]
) -> None:
    phases: set[str] = set()
    log = DriverLog(lambda driver, step: phases.update(driver.status()["phases"]))
    config = group_config(data, pretrained, tmp_path / "run", depth=1, learners=1)
    assert tune_on_ray(config, log, on_driver=log.take).is_finished
    assert weight_digest(tmp_path / "run" / POLICY) == undisturbed[1]
    assert "learn" in phases and "exchange" not in phases


def test_any_rank_may_be_killed(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None, undisturbed: list[str]
) -> None:
    victims = {3: "learner-1", 6: "learner"}
    restarts: dict[str, int] = {}
    pids: set[int] = set()

    def kill(driver: Driver, step: int) -> None:
        found = services(driver)
        pids.update(service["pid"] for service in found.values())
        restarts.update({name: found[name]["restarts"] for name in ("learner", "learner-1")})
        if (name := victims.pop(step, None)) is not None:
            os.kill(found[name]["pid"], signal.SIGKILL)

    log = DriverLog(kill)
    config = group_config(data, pretrained, tmp_path / "run", depth=1)
    assert tune_on_ray(config, log, on_driver=log.take).is_finished
    assert victims == {}
    assert weight_digest(tmp_path / "run" / POLICY) == undisturbed[1]
    assert len([m for m in log.messages if m.startswith("learner died")]) == 2
    assert restarts == {"learner": 2, "learner-1": 2}
    state = final_state(tmp_path / "run")
    assert state["term"] == 2
    ledger = Ledger.from_state(state["ledger"])
    num_lost = len(ledger.invalid) + len(ledger.skipped)
    assert ledger.num_admitted == NUM_STEPS * config.learner.batch_size
    assert ledger.num_admitted == ledger.num_trained + num_lost
    wait_until_gone(pids)
    assert len(pids) == 2 + 3 * 2, "a sampler, a reward worker, and three starts of two ranks"


@dataclass(slots=True)
class Start:
    """What one of several starts of a run did."""

    is_finished: bool
    log: DriverLog
    kinds: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def starts(
    data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> tuple[Path, list[Start]]:
    """One rank is drained, two that go on are drained, two finish; and the run's directory."""
    directory, made = tmp_path_factory.mktemp("drained") / "run", []
    for learners, drained_at in ((1, 3), (2, 5), (2, None)):
        made.append(started(data, pretrained, directory, learners=learners, drained_at=drained_at))
        wait_until_gone(made[-1].pids)
    return directory, made


def started(
    data: Path, pretrained: Path, directory: Path, *, learners: int, drained_at: int | None
) -> Start:
    def look(driver: Driver, step: int) -> None:
        found = services(driver).values()
        start.pids.update(service["pid"] for service in found)
        start.kinds[:] = [service["kind"] for service in found]
        start.seconds.update(driver.status()["phases"])
        if step == drained_at:
            driver.drain()

    start = Start(is_finished=False, log=DriverLog(look))
    config = group_config(data, pretrained, directory, depth=0, learners=learners)
    start.is_finished = tune_on_ray(config, start.log, on_driver=start.log.take).is_finished
    return start


def test_a_run_that_was_drained_goes_on_to_the_same_weights(
    starts: tuple[Path, list[Start]], undisturbed: list[str]
) -> None:
    directory, (first, second, third) = starts
    assert not first.is_finished
    assert third.is_finished
    assert first.log.steps[-1] < second.log.steps[0] == first.log.steps[-1] + 1
    assert weight_digest(directory / POLICY) == undisturbed[0]


def test_a_group_that_was_drained_goes_on_to_the_same_weights(
    starts: tuple[Path, list[Start]], undisturbed: list[str]
) -> None:
    directory, (_, second, third) = starts
    assert not second.is_finished
    assert third.is_finished
    assert second.log.steps[-1] < third.log.steps[0] == second.log.steps[-1] + 1
    assert second.kinds == third.kinds == ["learner", "learner_rank", "sampler", "reward_worker"]
    assert second.seconds["exchange"] > 0.0
    messages = [message for start in starts[1] for message in start.log.messages]
    assert not any("started again" in message for message in messages)
    assert weight_digest(directory / POLICY) == undisturbed[0]


def test_a_step_that_leaves_the_numbers_ends_the_run_for_all_ranks(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None
) -> None:
    """Finite weights, and nothing finite to be computed from them."""
    config = group_config(data, pretrained, tmp_path / "run", depth=1)
    optimizer = AdafactorConfig(learning_rate=1e16)
    learner = config.learner.model_copy(update={"optimizer": optimizer})
    config = config.model_copy(update={"learner": learner})
    log = DriverLog()
    with pytest.raises(NotFinite, match="is not finite") as raised:
        tune_on_ray(config, log, on_driver=log.take)
    found = re.match(r"step (\d+): the .* checkpoint is step (\d+): (.*)\. Go", str(raised.value))
    assert found is not None
    last = int(found[1]) - 1
    assert (log.steps, int(found[2])) == (list(range(1, last + 1)), last)
    assert found[3] == str(tmp_path / f"run/checkpoints/checkpoint-{last:08d}")
    assert load_checkpoint(Path(found[3])).state["ledger"]["num_batches"] == last > 0
    assert not any("started again" in message for message in log.messages)


@pytest.mark.parametrize(
    ("learner", "cluster", "compute", "said"),
    [
        (
            {"gradient_shards": 1},
            {"learners": 2},
            {},
            "cluster.learners = 2 does not divide learner.gradient_shards = 1: each learner "
            "computes as many shards as the others",
        ),
        (
            {"gradient_shards": 3, "batch_size": 12},
            {"learners": 2},
            {},
            "cluster.learners = 2 does not divide learner.gradient_shards = 3",
        ),
        (
            {"gradient_shards": 2},
            {"learners": 2, "learner_gpus": 0.5},
            {},
            "cluster.learner_gpus = 0.5 would share a GPU, which NCCL refuses",
        ),
        (
            {"gradient_shards": 2},
            {"learners": 2},
            {"device": "cuda"},
            "cluster.learner_gpus = 0 would share a GPU",
        ),
    ],
)
def test_learners_that_cannot_share_the_work_are_refused_in_one_line(
    tmp_path: Path,
    learner: dict[str, Any],
    cluster: dict[str, Any],
    compute: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        tiny_tune(tmp_path, tmp_path, tmp_path, learner=learner, cluster=cluster, compute=compute)
    assert len(str(caught.value).splitlines()) == 1


def test_how_many_learn_is_no_part_of_a_runs_identity(tmp_path: Path) -> None:
    one, two = (
        group_config(tmp_path, tmp_path, tmp_path, depth=1, learners=learners)
        for learners in (1, 2)
    )
    assert one.identity_hash() == two.identity_hash()
