"""A run's reward, loaded: the values of every part for one group, and what they compose to.

Axes: S rollouts.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reward_workers.scoring.compose import compose
from reward_workers.scoring.config import RewardConfig, RewardPart, Source, module_of
from reward_workers.scoring.score import BadScore, image_of
from rewardtune.datasets.example import Example
from rewardtune.datasets.frame import Framed
from rewardtune.records import Group, Score
from rewardtune.tasks.artefacts import found_artefacts, named_artefacts, with_options
from rewardtune.tasks.task import Task
from rewardtune.transport.reward_service.messages import (
    Description,
    Question,
    RewardRefused,
    RewardServerError,
    RewardUnavailable,
)
from rewardtune.transport.security.config import PLAIN, SecurityConfig

if TYPE_CHECKING:
    from rewardtune.transport.reward_service.client import RewardClient

RewardFunction = Callable[[Sequence[Any], Example], Any]
"""Of a group's predictions and their example: one number for each prediction."""


class RewardFailed(RuntimeError):
    """A part of the reward raised; the message names the part and the example."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a part is asked to value: one group of distinct rollouts."""

    group: Group
    framed: Framed
    predictions: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Valued:
    values: Any
    """One number per rollout, not yet checked."""
    components: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class _Part(Protocol):
    def value(self, asked: Asked) -> Valued: ...


class Reward:
    """Implements ``score.Custom``. Pure if its functions and servers are."""

    def __init__(
        self, config: RewardConfig, *, task: Task, parts: Mapping[str, _Part], is_human: bool
    ) -> None:
        self._config = config
        self._task = task
        self._parts = parts
        self.is_human = is_human
        """People have a say in it: a score takes as long as it takes."""

    def apply(self, own: Score, group: Group, framed: Framed, predictions: Sequence[Any]) -> Score:
        """Compose the parts; the task's components and aux stay beside them.

        Raises:
            RewardFailed: a part raised.
            BadScore: a part gave something else than one finite number per rollout.
            RewardRefused: a server is not the one that the run began with.
            ValueError: a part has the name of one of the task's components.
        """
        if not own.is_valid:
            return own
        asked = Asked(group=group, framed=framed, predictions=predictions)
        values = {name: own.reward_S for name, _ in self._config.of_source(Source.TASK)}
        components = dict(own.components)
        for name, part in self._parts.items():
            where = f"reward '{name}' ({self._config.parts[name].use}), {image_of(framed.example)}"
            valued = _valued(part, asked, where)
            values[name] = _checked(valued.values, len(group.tokens_ST), where)
            for inner, value in valued.components.items():
                components[f"{name}_{inner}"] = _checked(value, len(group.tokens_ST), where)
        composition = compose(self._config, values)
        for name, value_S in composition.parts.items():
            if name in components:
                raise ValueError(
                    f"reward.parts.{name} has the name of a component of task '{self._task.name}' "
                    f"({', '.join(own.components)}): choose another"
                )
            components[name] = value_S
        return Score(reward_S=composition.reward_S, components=components, aux=own.aux)


def load_reward(
    config: RewardConfig,
    *,
    task: Task,
    task_name: str,
    task_options: Mapping[str, Any],
    files: Mapping[str, Mapping[str, Path]],
    dataset_digest: str,
    patience_seconds: float,
    security: SecurityConfig = PLAIN,
) -> Reward:
    """Import functions, build classes, and ask servers what they are.

    Args:
        task_name, task_options: what ``task`` was loaded by.
        files: of each part that is a function, what ``reward_artefacts`` found.
        patience_seconds: with a server, for one group.
        security: what servers at ``grpcs://`` are called with.

    Raises:
        ValueError: no such module or function, or a server of another task or data set.
        RewardUnavailable: a server does not answer.
        Exception: whatever importing the module, or building the class, raises.
    """
    parts: dict[str, _Part] = {}
    is_human = False
    for name, part in config.of_source(Source.FUNCTION):
        if not hasattr(task, "decode"):
            raise ValueError(
                f"task '{task_name}' has no decode, which reward.parts.{name} needs: add the "
                "method of rewardtune.tasks.task.Task"
            )
        parts[name] = _Function(_built(part, files[name]))
    for name, part in config.of_source(Source.SERVER):
        # grpc is loaded by those who need it: every scorer is a process of its own.
        from rewardtune.transport.reward_service.client import RewardClient

        client = RewardClient(part.address, security if part.is_encrypted else None)
        described = client.describe()
        _check_server(described, name, part, task_name, dataset_digest)
        is_human = is_human or described.is_human
        parts[name] = _Server(
            client,
            described,
            task=task,
            task_options=task_options,
            patience_seconds=None if described.is_human else patience_seconds,
        )
    return Reward(config, task=task, parts=parts, is_human=is_human)


def named_by(use: str) -> Any:
    """The function or class that "module:name" stands for.

    Raises:
        ValueError: there is none.
        Exception: whatever the module raises while it is imported.
    """
    module_name, name = module_of(use)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        raise ValueError(
            f"reward '{use}': there is no module {module_name} here: put its folder on "
            "PYTHONPATH, or start the reward worker with --code and the folder (RUN/code of the "
            "run has a copy)"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(
            f"reward '{use}': module {module_name} ({module.__file__}) has no function or class "
            f"'{name}'"
        )
    return found


def reward_files(part: RewardPart) -> dict[str, Path]:
    """The files that a function's options name, by the option's key, as they are named.

    Raises:
        As ``named_by``.
    """
    if not part.options:
        return {}  # nothing can be named, and the module need not be imported
    assert part.use is not None
    return named_artefacts(named_by(part.use), part.options, of=f"reward '{part.use}'")


def reward_artefacts(part: RewardPart, *, folder: Path | None) -> dict[str, Path]:
    """The same, where they lie on this machine.

    Raises:
        As ``named_by``, and ValueError for one that is missing.
    """
    return found_artefacts(reward_files(part), folder=folder, of=f"reward '{part.use}'")


def _built(part: RewardPart, files: Mapping[str, Path]) -> RewardFunction:
    assert part.use is not None
    found = named_by(part.use)
    options = with_options(part.options, {key: str(path) for key, path in files.items()})
    if isinstance(found, type):
        instance: RewardFunction = found(**options)
        return instance
    return functools.partial(found, **options)


class _Function:
    def __init__(self, function: RewardFunction) -> None:
        self._function = function

    def value(self, asked: Asked) -> Valued:
        return Valued(self._function(asked.predictions, asked.framed.example))


class _Server:
    def __init__(
        self,
        client: RewardClient,
        described: Description,
        *,
        task: Task,
        task_options: Mapping[str, Any],
        patience_seconds: float | None,
    ) -> None:
        self._client = client
        self._described = described
        self._vocabulary = task.vocabulary.describe()
        self._task_options = task_options
        self._patience_seconds = patience_seconds

    def value(self, asked: Asked) -> Valued:
        question = Question(
            group=asked.group,
            framing=asked.framed.frame.framing,
            dataset_digest=self._described.dataset_digest,
            reward_digest=self._described.reward_digest,
            vocabulary=self._vocabulary,
            task_options=self._task_options,
        )
        score = self._client.score(question, patience_seconds=self._patience_seconds)
        if not score.is_valid:
            raise RewardServerError("the server says that it could not score the group")
        return Valued(score.reward_S, score.components)


def _valued(part: _Part, asked: Asked, where: str) -> Valued:
    try:
        return part.value(asked)
    except RewardRefused:
        raise
    except (RewardUnavailable, RewardServerError) as error:
        raise RewardFailed(f"{where}: {error}") from error
    except Exception as error:
        raise RewardFailed(f"{where}: {type(error).__name__}: {error}") from error


def _checked(values: Any, num_rollouts: int, where: str) -> NDArray[np.float64]:
    try:
        values_S = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadScore(
            f"{where}: gave {type(values).__name__} that is not numbers: return one number per "
            "prediction"
        ) from None
    if values_S.shape != (num_rollouts,):
        raise BadScore(
            f"{where}: gave shape {list(values_S.shape)} for {num_rollouts} predictions: return "
            "one number per prediction"
        )
    if not np.isfinite(values_S).all():
        raise BadScore(f"{where}: gave {values_S[~np.isfinite(values_S)][0]}, not a finite number")
    return values_S


def _check_server(
    described: Description, name: str, part: RewardPart, task_name: str, dataset_digest: str
) -> None:
    if described.task != task_name:
        raise ValueError(
            f"reward.parts.{name}: {part.use} scores task '{described.task}', the run's task is "
            f"'{task_name}': start the server for that task"
        )
    if described.dataset_digest != dataset_digest:
        raise ValueError(
            f"reward.parts.{name}: {part.use} has data set {described.dataset_digest[:12]}, the "
            f"run uses {dataset_digest[:12]}: start the server with the run's training data"
        )
