"""A reward function served over gRPC, for runs elsewhere: ``reward = "grpc://host:port"``."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reward_workers.scoring.config import RewardConfig, RewardPart
from reward_workers.scoring.digest import ScorerSettings
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.reward import Reward
from rewardtune.datasets.frame import Framed
from rewardtune.datasets.shards.dataset import ShardDataset
from rewardtune.records import Score
from rewardtune.tasks.task import Task, find_task
from rewardtune.transport.reward_service.messages import Description, Question, RewardRefused

_NAME = "served"


class ServedReward:
    """Implements ``rewardtune.transport.reward_service.server.Rewards`` for a function or class.

    It decodes tokens and opens examples as a reward worker does, so a function is given the same
    in either place.
    """

    def __init__(
        self,
        use: str,
        *,
        task_name: str,
        dataset: ShardDataset,
        options: Mapping[str, Any] | None = None,
        is_human: bool = False,
        max_concurrency: int = 1,
        artefacts: Path | None = None,
    ) -> None:
        """
        Args:
            use: "module:function", or "module:Class".
            dataset: the run's training data.
            options: keyword arguments of the function or class.
            is_human: people score, in their own time.
            max_concurrency: groups that are scored at once, as the server is told.
            artefacts: folder in which files that options name are looked for first.

        Raises:
            ValueError: no such task, module or function, or a missing file.
        """
        part = RewardPart(use=use, options=dict(options or {}))
        config = RewardConfig(sum={_NAME: 1.0}, parts={_NAME: part})
        self._task_name = task_name
        self._dataset = dataset
        self._artefacts = artefacts
        # The task's own options come with each question, and are part of the run's own digest.
        self._resolved = resolve(task_name, {}, config, artefacts=artefacts)
        self._description = Description(
            task=task_name,
            reward_digest=self._resolved.digest(scorer=ScorerSettings()),
            dataset_digest=dataset.digest,
            max_concurrency=max_concurrency,
            is_human=is_human,
        )
        # A run asks with the same options each time.
        self._loaded = functools.lru_cache(maxsize=1)(self._load)

    def describe(self) -> Description:
        return self._description

    def score(self, question: Question) -> Score:
        """
        Raises:
            RewardRefused: the question is for another data set or reward.
            Exception: whatever the function raises.
        """
        own = self._description
        for name, asked, have in (
            ("data set", question.dataset_digest, own.dataset_digest),
            ("reward", question.reward_digest, own.reward_digest),
        ):
            if asked != have:
                raise RewardRefused(f"it has {name} {have[:12]}, the question is for {asked[:12]}")
        task, reward = self._loaded(json.dumps(question.task_options, sort_keys=True))
        if task.vocabulary.describe() != question.vocabulary:
            raise RewardRefused("the run's tokens mean something else than they do here")
        group = question.group
        example = self._dataset.example(group.example)
        framed = Framed.of(example, group.view, question.framing)
        nothing = Score(reward_S=np.zeros(len(group.tokens_ST)))
        applied = reward.apply(nothing, group, framed, task.decode(group.tokens_ST, framed))
        return Score(reward_S=applied.reward_S)

    def _load(self, options: str) -> tuple[Task, Reward]:
        found = find_task(self._task_name, json.loads(options), artefacts=self._artefacts)
        task = found.load(categories=self._dataset.categories)
        resolved = replace(self._resolved, task=found)
        reward = resolved.load_reward(
            task=task, dataset_digest=self._dataset.digest, patience_seconds=60.0
        )
        assert reward is not None
        return task, reward
