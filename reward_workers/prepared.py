"""A task and its data, proven to score as the run does, and ready for groups."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from reward_workers.group_scorer import GroupScorer
from reward_workers.scorer_wire import Start, Started, one_line
from reward_workers.scoring.resolved import resolve
from reward_workers.scoring.reward import Reward
from reward_workers.scoring.score import score_group
from reward_workers.scoring.spec import ScoringSpec
from rewardtune.datasets.example import Dataset
from rewardtune.datasets.shards.dataset import open_dataset
from rewardtune.tasks.task import Task

_PATIENCE = 0.8
"""Of the deadline of a group, with servers: what is left is for saying that they did not answer."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What to tell the worker, and the scorer unless it must not score."""

    started: Started
    scorer: GroupScorer | None


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
        resolved = resolve(
            spec.task,
            spec.task_options,
            spec.reward,
            artefacts=artefacts,
            security=start.security,
        )
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
    scorer = GroupScorer(task, dataset, framing=spec.framing, reward=reward, promise=spec.promise)
    return Prepared(started, scorer)


def golden_difference(
    spec: ScoringSpec, task: Task, dataset: Dataset, *, reward: Reward | None = None
) -> str:
    """What becomes of the golden examples here, if it is not what the run has; else empty."""
    for number, golden in enumerate(spec.golden):
        scored = score_group(
            golden.group(), task=task, dataset=dataset, framing=spec.framing, reward=reward
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
