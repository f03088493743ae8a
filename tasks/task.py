"""The contract between the pipeline and a task, and how a task is found by name.

Axes: S rollouts, T tokens of a sequence, Q probed tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from records import Group, Score, TokenTargets, View
from tasks.example import Category, Dataset, Example


class Task(Protocol):
    """Codec, reward and metric of one kind of output. Pure: same in, same out; no torch."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def sequence_length(self) -> int: ...

    @property
    def stop_token(self) -> int | None:
        """A sequence that draws this token is finished; None: every position is drawn."""
        ...

    @property
    def probe_tokens(self) -> tuple[int, ...]:
        """Tokens whose log-probs the sampler returns at every position."""
        ...

    @property
    def score_rules(self) -> tuple[str, ...]:
        """How predictions can be ranked; the first is the default."""
        ...

    def describe_vocabulary(self) -> dict[str, Any]:
        """What the tokens mean, as JSON; policies store it to refuse another vocabulary."""
        ...

    def target_tokens(
        self, example: Example, view: View, *, input_size: int, rng: np.random.Generator
    ) -> NDArray[np.int32]:
        """The example's annotation as a token sequence [T] for maximum likelihood."""
        ...

    def score(
        self, tokens_ST: NDArray[np.int32], example: Example, view: View, *, input_size: int
    ) -> Score:
        """Rewards of a group's rollouts."""
        ...

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        """Soft targets to train beside the reward; None where the task has none."""
        ...

    def predict(
        self,
        tokens_T: NDArray[np.int32],
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        example: Example,
        view: View,
        *,
        input_size: int,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One decoded sequence as records of the task's official results file."""
        ...

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """The official metric of results records over the examples at ``indices``."""
        ...


def load_task(name: str, options: Mapping[str, Any], *, categories: Sequence[Category]) -> Task:
    """Build a task by name: ``tasks.NAME`` of this project, or any importable module.

    Args:
        name: a folder of ``tasks``, or the (dotted) name of a module of the user's.
        options: the task's own settings, validated by the task.
        categories: the training data's classes, with their instance counts.

    Raises:
        ValueError: no such task, or options it does not know.
    """
    # Ours first: a module of the user's never shadows a task of the project.
    for module_name in (f"tasks.{name}", name):
        try:
            module = importlib.import_module(module_name)
            break
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module is there, and something that it imports is not
    else:
        raise ValueError(
            f"task '{name}' is neither a folder of tasks/ nor a module that can be imported: set "
            "task to 'detection', or put the folder of your own module on PYTHONPATH"
        )
    if not hasattr(module, "TASK"):
        raise ValueError(
            f"module {module.__name__} has no TASK: a task module names its class TASK"
        )
    task: Task = module.TASK(options, categories=categories)
    return task
