"""A run on Ray: the same weights as in one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rewardtune.config import RunConfig
from rewardtune.driver import Driver
from rewardtune.launch import tune_on_ray
from rewardtune.local import pretrain, tune
from tests.rewardtune.tiny_run import (
    SILENT,
    tiny_config,
    tiny_tune,
    weight_digest,
    write_tiny_digits,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pretrained")
    return pretrain(tiny_config(data, directory), SILENT).policy_path


@pytest.fixture(autouse=True)
def _actors_find_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of the tests are imported by reward workers too."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class _Log:
    """Calls a function after each step, in the driver's thread."""

    def __init__(self, on_step: Callable[[Driver, int], None] = lambda driver, step: None) -> None:
        self.messages: list[str] = []
        self.steps: list[int] = []
        self.driver: Driver | None = None
        self._on_step = on_step

    def take(self, driver: Driver) -> None:
        self.driver = driver

    def step(self, record: Mapping[str, float]) -> None:
        self.steps.append(int(record["step"]))
        assert self.driver is not None
        self._on_step(self.driver, int(record["step"]))

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)

    def close(self) -> None: ...


def config_of(data: Path, pretrained: Path, directory: Path, **changes: Any) -> RunConfig:
    cluster = {"num_samplers": 2, "num_reward_workers": 2, "lease_seconds": 2, "metrics_port": 0}
    defaults = {"compute": {"threads": 1}, "cluster": cluster, "learner": {"num_steps": 12}}
    return tiny_tune(data, pretrained, directory, **{**defaults, **changes})


def final_state(directory: Path) -> dict[str, Any]:
    newest = max(directory.glob("checkpoints/checkpoint-*"))
    state: dict[str, Any] = json.loads((newest / "state.json").read_text())
    return state


def test_a_sampler_a_reward_worker_and_the_learner_are_killed_and_nothing_shows(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None
) -> None:
    victims = {3: "sampler", 5: "reward_worker", 8: "learner"}

    def kill(driver: Driver, step: int) -> None:
        if (kind := victims.pop(step, None)) is not None:
            services = driver.status()["services"]
            os.kill(next(s["pid"] for s in services if s["kind"] == kind), signal.SIGKILL)

    undisturbed = tune(config_of(data, pretrained, tmp_path / "local"), SILENT)
    log = _Log(kill)
    config = config_of(data, pretrained, tmp_path / "ray")
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


def test_a_run_that_was_drained_goes_on_to_the_same_weights(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None
) -> None:
    def drain(driver: Driver, step: int) -> None:
        if step == 5:
            driver.drain()

    undisturbed = tune(config_of(data, pretrained, tmp_path / "local", depth=0), SILENT)
    config = config_of(data, pretrained, tmp_path / "drained", depth=0)
    first, second = _Log(drain), _Log()
    assert not tune_on_ray(config, first, on_driver=first.take).is_finished
    assert tune_on_ray(config, second, on_driver=second.take).is_finished
    assert first.steps[-1] < second.steps[0] == first.steps[-1] + 1
    assert weight_digest(tmp_path / "drained/policy.safetensors") == weight_digest(
        undisturbed.directory / "policy.safetensors"
    )


def test_what_nobody_can_score_is_invalid_and_not_a_reward_of_nothing(
    data: Path, pretrained: Path, tmp_path: Path, ray_session: None
) -> None:
    config = config_of(
        data,
        pretrained,
        tmp_path / "run",
        task="tests.rewardtune.refuses_one",
        learner={"num_steps": 4},
    )
    letters: list[int] = []

    def look(driver: Driver, step: int) -> None:
        if step == 4:
            letters.extend(letter.ordinal for letter in driver.dead_letters())

    log = _Log(look)
    assert tune_on_ray(config, log, on_driver=log.take).is_finished
    invalid = final_state(tmp_path / "run")["ledger"]["invalid"]
    assert len(invalid) >= 1
    assert set(invalid) <= set(letters)
    assert len(invalid) < 4 * config.learner.batch_size
