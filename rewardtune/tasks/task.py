"""The contract between the pipeline and a task, and how a task is found by name.

A task's class may also have a static method that names the files its options speak of, such as
document frequencies or the weights of a network::

    @staticmethod
    def artefacts(options: Mapping[str, Any]) -> Mapping[str, Path]:
        return {"statistics": Path(options["statistics"])} if "statistics" in options else {}

- It is called with ``task_options`` as the config has them, before they are validated and before
  the task is built. A key is that of an option (dotted where tables are nested) and must stand
  in the options; the value is the path as it is written there. No such method: no artefacts.
- A path may name a file or a folder. A missing one is one clear error. Relative paths count from
  the current folder; a reward worker on another machine looks in its ``--artefacts DIR`` first
  (``rewardtune.tasks.artefacts.found_artefacts``).
- ``load_task`` hands the task its options with each of these paths replaced by the absolute path
  that was found: the task opens ``options["statistics"]`` and needs to resolve nothing.
- In the run's identity and in the reward digest the hash of what a path holds stands in the
  path's place: copies elsewhere are the same, a changed file is another run.

Axes: S rollouts, T tokens of a sequence, Q probed tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framed
from rewardtune.records import Group, Score, TokenRewards, TokenTargets
from rewardtune.tasks.artefacts import found_artefacts, named_artefacts, with_options
from rewardtune.tasks.vocabulary import Vocabulary


class Task(Protocol):
    """Codec, reward and metric of one kind of output. Pure: same in, same out; no torch.

    An example comes with the frame that its policy sees it in (``rewardtune.datasets.frame``):
    targets speak of what is seen, predictions of the example's own image.
    """

    @property
    def name(self) -> str: ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens that its policy draws, and what they mean."""
        ...

    @property
    def score_rules(self) -> tuple[str, ...]:
        """How predictions can be ranked; the first is the default."""
        ...

    def target_tokens(self, framed: Framed, *, rng: np.random.Generator) -> NDArray[np.int32]:
        """The example's annotation as a token sequence [T] for maximum likelihood."""
        ...

    def decode(self, tokens_ST: NDArray[np.int32], framed: Framed) -> Sequence[Any]:
        """A group's rollouts as what a custom reward is given: one prediction each, in order.

        In the frame of the example's own image, so that they can be held against its annotation:
        a view that flips or zooms is undone. No scores and no log-probs: a reward must not know
        how likely a rollout was. The task documents the type; whatever tokens there are decode
        to something. ``rewardtune.tasks.decoded.Decoded`` is a sequence that also keeps what was
        decoded as it was.

        Raises:
            ValueError: ``tokens_ST`` is not integers of shape [S, T].
        """
        ...

    def score(self, decoded: Any, framed: Framed) -> Score:
        """Rewards of a group's rollouts.

        Args:
            decoded: what ``decode`` returned for the same example and frame.
        """
        ...

    def token_targets(self, group: Group, score: Score) -> TokenTargets | None:
        """Soft targets to train beside the reward; None where the task has none."""
        ...

    def predict(
        self,
        decoded: Any,
        log_probs_T: NDArray[np.float32],
        probe_log_probs_TQ: NDArray[np.float32],
        framed: Framed,
        *,
        score_rule: str,
    ) -> list[dict[str, Any]]:
        """One rollout as records of the task's official results file.

        Args:
            decoded: what ``decode`` returned for it alone.
        """
        ...

    def evaluate(
        self, results: Sequence[Mapping[str, Any]], dataset: Dataset, *, indices: Sequence[int]
    ) -> dict[str, float]:
        """The official metric of results records over the examples at ``indices``."""
        ...


@runtime_checkable
class InputTask(Protocol):
    """What a task has beside ``Task`` if its policy does not see the pictures as they are."""

    def input_images(self, images_GHWC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pictures in their views, in [-1, 1], as the policy is shown them."""
        ...


@runtime_checkable
class TokenRewardsTask(Protocol):
    """What a task has beside ``Task`` if it knows what tokens that were not drawn would earn."""

    @property
    def has_token_rewards(self) -> bool:
        """Whether the options ask for them."""
        ...

    def token_rewards(self, group: Group, score: Score) -> TokenRewards:
        """Of every valid group, at the same positions and tokens."""
        ...


@runtime_checkable
class BoundedTask(Protocol):
    """What a task has beside ``Task`` if it knows how far its scores can go."""

    @property
    def score_bounds(self) -> Mapping[str, tuple[float, float]]:
        """Least and greatest value of "reward", and of any component or aux by its name.

        Whatever tokens there are and whatever the example shows. In a cluster the learner refuses
        a result beyond them, so that nobody who can write into the queue can make a run learn
        from a reward of 187,502.
        """
        ...


@runtime_checkable
class PicturedTask(Protocol):
    """What a task has beside ``Task`` if its predictions are more than boxes on a picture."""

    def paint(
        self, example: Example, records: Sequence[Mapping[str, Any]] | None
    ) -> NDArray[np.uint8]:
        """One example's results records as a picture [H, W, 3]; None: its annotation."""
        ...

    def write_results(self, records: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """The official files of results records; what is there of an earlier call is replaced."""
        ...


@runtime_checkable
class CuttingTask(Protocol):
    """What a task has beside ``Task`` if there are annotations that its sequences are short for."""

    def is_cut(self, framed: Framed, *, rng: np.random.Generator) -> bool:
        """Whether ``target_tokens`` of the same example, drawn alike, leaves out an end."""
        ...


@dataclass(frozen=True, slots=True)
class FoundTask:
    """A task's class, and its options with the files that they name; not built yet."""

    name: str
    options: Mapping[str, Any]
    """As the config has them."""
    task_class: Any
    files: Mapping[str, Path]
    """Where the files that options name lie here, by the option's key."""

    def load(self, *, categories: Sequence[Category]) -> Task:
        """Build the task.

        Args:
            categories: the training data's classes, with their instance counts.

        Raises:
            ValueError: options that it does not know.
        """
        paths = {key: str(path) for key, path in self.files.items()}
        task: Task = self.task_class(with_options(self.options, paths), categories=categories)
        return task


def find_task(name: str, options: Mapping[str, Any], *, artefacts: Path | None = None) -> FoundTask:
    """Find a task by name: ``rewardtune.tasks.NAME``, or any importable module.

    Args:
        name: a folder of ``rewardtune/tasks``, or the (dotted) name of a module of the user's.
        options: the task's own settings, validated when it is built.
        artefacts: folder in which files that the options name are looked for first.

    Raises:
        ValueError: no such task, or a file that is missing.
    """
    found, of = task_class(name), f"task '{name}'"
    files = found_artefacts(named_artefacts(found, options, of=of), folder=artefacts, of=of)
    return FoundTask(name, options, found, files)


def load_task(
    name: str,
    options: Mapping[str, Any],
    *,
    categories: Sequence[Category],
    artefacts: Path | None = None,
) -> Task:
    """Find a task and build it: a folder of ``rewardtune/tasks``, or a module of the user's.

    Args:
        name: "detection", or the (dotted) name of a module that has a ``TASK``.
        options: the task's own settings, validated by the task.
        categories: the training data's classes, with their instance counts.
        artefacts: folder in which files that the options name are looked for first.

    Raises:
        ValueError: no such task, options that it does not know, or a file that is missing.
    """
    return find_task(name, options, artefacts=artefacts).load(categories=categories)


def check_score_rule(rule: str, task: Task) -> None:
    """Raises ValueError where the task ranks no prediction by a rule of this name."""
    if rule not in task.score_rules:
        raise ValueError(
            f"score_rule '{rule}' is unknown to task '{task.name}': choose from "
            f"{', '.join(task.score_rules)}"
        )


def task_class(name: str) -> Any:
    """The class that a task's module names TASK.

    Raises:
        ValueError: no such task.
    """
    # Ours first: a module of the user's never shadows a task of the project.
    for module_name in (f"rewardtune.tasks.{name}", name):
        try:
            module = importlib.import_module(module_name)
            break
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise  # the module is there, and something that it imports is not
    else:
        raise ValueError(
            f"task '{name}' is neither a folder of rewardtune/tasks/ nor a module that can be "
            "imported: check its spelling, or put the folder of your own module on PYTHONPATH"
        )
    if not hasattr(module, "TASK"):
        raise ValueError(
            f"module {module.__name__} has no TASK: a task module names its class TASK"
        )
    return module.TASK
