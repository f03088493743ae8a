"""A task and its data, proven to score as the run does, and ready for groups."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reward_workers.scorer_wire import Failed, Reply, Scored, Start, Started, Unfit, one_line
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.reward import Reward, RewardFailed
from reward_workers.scoring.score import BadScore, score_group
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.datasets.shards.manifest import DatasetError
from rewardtune.tasks.task import Task
from rewardtune.transport.reward_service.messages import RewardRefused
from rewardtune.transport.wire import group_from_bytes, scored_group_to_bytes

_PATIENCE = 0.8
"""Of the deadline of a group, with servers: what is left is for saying that they did not answer."""


class _DataUnreadable(Exception):
    """An example could not be read: this machine's fault, not the group's."""


class _TimedDataset:
    """Counts the seconds that reading takes and marks its errors."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.load_seconds = 0.0

    @property
    def digest(self) -> str:
        return self._dataset.digest

    @property
    def categories(self) -> Sequence[Category]:
        return self._dataset.categories

    def __len__(self) -> int:
        return len(self._dataset)

    def example(self, index: int) -> Example:
        started = time.perf_counter()
        try:
            return self._dataset.example(index)
        except (DatasetError, OSError) as error:
            raise _DataUnreadable(str(error)) from error
        finally:
            self.load_seconds += time.perf_counter() - started


class Scorer:
    """A task and its data, ready for groups."""

    def __init__(
        self, task: Task, dataset: Dataset, *, input_size: int, reward: Reward | None = None
    ) -> None:
        self._task = task
        self._reward = reward
        self._dataset = _TimedDataset(dataset)
        self._input_size = input_size

    def score(self, body: bytes) -> Reply:
        """Answer for one group's bytes; whatever the reward code raises is part of the answer."""
        self._dataset.load_seconds = 0.0
        started = time.perf_counter()
        try:
            group = group_from_bytes(body)
            scored = score_group(
                group,
                task=self._task,
                dataset=self._dataset,
                input_size=self._input_size,
                reward=self._reward,
            )
        except (_DataUnreadable, RewardRefused) as error:
            return Unfit(str(error))
        except BadScore as error:
            return Failed(is_invalid=True, message=str(error), traceback="")
        except RewardFailed as error:
            return Failed(is_invalid=False, message=str(error), traceback=traceback.format_exc())
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return Failed(is_invalid=False, message=message, traceback=traceback.format_exc())
        try:
            encoded = scored_group_to_bytes(scored)
        except ValueError as error:
            return Failed(is_invalid=True, message=str(error), traceback="")
        load_seconds = self._dataset.load_seconds
        return Scored(encoded, load_seconds, time.perf_counter() - started - load_seconds)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to tell the worker, and the scorer unless it must not score."""

    started: Started
    scorer: Scorer | None


def prepare(start: Start) -> Prepared:
    """Load what the spec names and prove it on the golden examples.

    Whatever keeps this scorer from the run is its refusal.
    """
    found_reward = found_dataset = ""
    reward = None
    artefacts = Path(start.artefacts_path) if start.artefacts_path else None
    try:
        spec = ScoringSpec.from_bytes(start.spec)
        dataset = open_dataset(Path(start.data_path))
        found_dataset = dataset.digest
        resolved = resolve(spec.task, spec.task_options, spec.reward, artefacts=artefacts)
        found_reward = resolved.digest(scorer=spec.scorer)
        refusal = _difference(spec, found_dataset, found_reward, start.data_path)
        if not refusal:
            task = resolved.load_task(categories=dataset.categories)
            reward = resolved.load_reward(
                task=task,
                dataset_digest=found_dataset,
                patience_seconds=_PATIENCE * start.deadline_seconds,
            )
            refusal = golden_difference(spec, task, dataset, reward=reward)
    except Exception as error:
        # Whatever loading the user's module raises; the traceback goes to the worker's log.
        traceback.print_exc()
        refusal = f"{type(error).__name__}: {error}"
    is_human = reward is not None and reward.is_human
    started = Started(found_reward, found_dataset, one_line(refusal), is_human=is_human)
    if refusal:
        return Prepared(started, None)
    return Prepared(started, Scorer(task, dataset, input_size=spec.input_size, reward=reward))


def golden_difference(
    spec: ScoringSpec, task: Task, dataset: Dataset, *, reward: Reward | None = None
) -> str:
    """What becomes of the golden examples here, if it is not what the run has; else empty."""
    for number, golden in enumerate(spec.golden):
        scored = score_group(
            golden.group(), task=task, dataset=dataset, input_size=spec.input_size, reward=reward
        )
        rewards = tuple(scored.score.reward_S.tolist())
        if rewards != golden.rewards:
            return (
                f"golden example {number} (example {golden.example}) gets rewards {rewards}, the "
                f"run has {golden.rewards}: use the same libraries and the same kind of processor"
            )
    return ""


def _difference(spec: ScoringSpec, dataset_digest: str, digest: str, data_path: str) -> str:
    if dataset_digest != spec.dataset_digest:
        return (
            f"the data set in {data_path} has digest {dataset_digest[:12]}, run '{spec.run}' uses "
            f"{spec.dataset_digest[:12]}: point --data at a copy of the run's training data"
        )
    if digest != spec.reward_digest:
        return (
            f"the reward of task '{spec.task}' has digest {digest[:12]} here, run '{spec.run}' "
            f"uses {spec.reward_digest[:12]}: install the same sources as the run, its files "
            "and its reward servers included"
        )
    return ""
