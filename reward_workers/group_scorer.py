"""Scores one group after another: bytes in, an answer out, whatever the reward code does."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence

from reward_workers.scorer_wire import Failed, Reply, Scored, Unfit
from reward_workers.scoring.reward import Reward, RewardFailed
from reward_workers.scoring.score import BadScore, score_group
from rewardtune.datasets.example import Category, Dataset, Example
from rewardtune.datasets.frame import Framing
from rewardtune.datasets.shards.manifest import DatasetError
from rewardtune.records.score_promise import NOTHING_PROMISED, ScorePromise, broken_promise
from rewardtune.tasks.task import Task
from rewardtune.transport.reward_service.messages import RewardRefused
from rewardtune.transport.wire import group_from_bytes, scored_group_to_bytes


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


class GroupScorer:
    """A task and its data, ready for groups."""

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        *,
        framing: Framing,
        reward: Reward | None = None,
        promise: ScorePromise = NOTHING_PROMISED,
    ) -> None:
        """
        Args:
            promise: what every score of the run is like; the learner refuses others.
        """
        self._promise = promise
        self._task = task
        self._reward = reward
        self._dataset = _TimedDataset(dataset)
        self._framing = framing

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
                framing=self._framing,
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
        broken = broken_promise(scored.score, self._promise)
        if not scored.score.is_valid:
            broken = f"task '{self._task.name}' says that it cannot score the group"
        if broken:
            return Failed(is_invalid=True, message=broken, traceback="")
        try:
            encoded = scored_group_to_bytes(scored)
        except ValueError as error:
            return Failed(is_invalid=True, message=str(error), traceback="")
        load_seconds = self._dataset.load_seconds
        return Scored(encoded, load_seconds, time.perf_counter() - started - load_seconds)
