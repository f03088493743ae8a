"""Runs on Ray for tests: a config of a few processes, and a log that looks on or interferes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rewardtune.cluster.driver.driver import Driver
from rewardtune.config.run_config import RunConfig
from tests.rewardtune.tiny_run import tiny_tune


class DriverLog:
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


def config_of(
    data: Path,
    pretrained: Path,
    directory: Path,
    *,
    num_each: int = 1,
    learners: int = 1,
    **changes: Any,
) -> RunConfig:
    """Without a holdout set: an evaluator would be one more process to wait for."""
    cluster = {
        "learners": learners,
        "num_samplers": num_each,
        "num_reward_workers": num_each,
        "lease_seconds": 2,
        "metrics_port": 0,
    }
    defaults = {"compute": {"threads": 1}, "cluster": cluster, "learner": {"num_steps": 12}}
    config = tiny_tune(data, pretrained, directory, **{**defaults, **changes})
    return config.model_copy(update={"data": config.data.model_copy(update={"holdout": None})})


def final_state(directory: Path) -> dict[str, Any]:
    newest = max(directory.glob("checkpoints/checkpoint-*"))
    state: dict[str, Any] = json.loads((newest / "state.json").read_text())
    return state
