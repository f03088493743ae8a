"""A run's task and reward with all that they name, found on this machine: once, then handed down.

A path, a module's name or an address says where something is; a run's identity and its reward
digest speak of what is there. Contents are texts by the key of the config whose value they stand
for: "task" (of a task of the user's), "task_options.statistics", "policy.kind" (of a policy of the
user's), "reward.parts.NAME.use", "reward.parts.NAME.options.KEY".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_workers.scoring.config import RewardConfig, Source
from reward_workers.scoring.digest import (
    OURS,
    ScorerSettings,
    class_sources,
    function_sources,
    reward_digest,
    scoring_sources,
)
from reward_workers.scoring.reward import Reward, load_reward, reward_artefacts
from rewardtune.datasets.example import Category
from rewardtune.tasks.artefacts import artefact_digest
from rewardtune.tasks.task import FoundTask, Task, find_task
from rewardtune.transport.security.config import PLAIN, SecurityConfig


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a run is scored by. Whoever has one neither looks for a file again nor hashes it."""

    task: FoundTask
    reward: RewardConfig | None
    """None: the task's own."""
    reward_files: Mapping[str, Mapping[str, Path]]
    """Of each part that is a function: the files that its options name, by the option's key."""
    contents: Mapping[str, str]
    security: SecurityConfig = PLAIN
    """What servers at ``grpcs://`` are called with."""

    def digest(self, *, scorer: ScorerSettings) -> str:
        """Of everything that decides the rewards (``reward_workers.scoring.digest``)."""
        return reward_digest(
            self.task.name,
            self.task.options,
            scorer=scorer,
            reward=self.reward,
            contents=self.contents,
        )

    def load_task(self, *, categories: Sequence[Category]) -> Task:
        """Raises ValueError: options that the task does not know."""
        return self.task.load(categories=categories)

    def load_reward(
        self, *, task: Task, dataset_digest: str, patience_seconds: float
    ) -> Reward | None:
        """What replaces the task's own reward, ready to score; None where nothing does.

        Args:
            task: as ``load_task`` gave it.
            patience_seconds: with a server, for one group.

        Raises:
            As ``reward_workers.scoring.reward.load_reward``.
        """
        if self.reward is None:
            return None
        return load_reward(
            self.reward,
            task=task,
            task_name=self.task.name,
            task_options=self.task.options,
            files=self.reward_files,
            dataset_digest=dataset_digest,
            patience_seconds=patience_seconds,
            security=self.security,
        )


def resolve(
    task_name: str,
    task_options: Mapping[str, Any],
    reward: RewardConfig | None,
    *,
    artefacts: Path | None = None,
    contents: Mapping[str, str] | None = None,
    search_path: Sequence[str] | None = None,
    security: SecurityConfig = PLAIN,
    policy: str | None = None,
) -> Resolved:
    """Find files and modules, read them, and ask servers what they are.

    Args:
        artefacts: folder in which files are looked for first.
        contents: what an earlier start of the run found; files are not read again then, and
            servers not asked.
        search_path: where to look for modules of the user's; ``sys.path`` by default.
        security: what servers at ``grpcs://`` are called with.
        policy: "module:Class" of the run's policy where that is the user's. It decides no reward,
            but a run's identity covers its source.

    Raises:
        ValueError: a file or module that is missing.
        RewardUnavailable, RewardServerError: a server does not answer, or fails to.
    """
    task = find_task(task_name, task_options, artefacts=artefacts)
    functions = () if reward is None else reward.of_source(Source.FUNCTION)
    files = {name: reward_artefacts(part, folder=artefacts) for name, part in functions}
    if contents is None:
        contents = _contents(task, reward, files, search_path=search_path, security=security)
        if policy is not None:
            own = _own(class_sources(policy, of=f"policy.kind = '{policy}'"))
            contents["policy.kind"] = f"{policy}@{_digest_of(own)}"
    return Resolved(
        task=task, reward=reward, reward_files=files, contents=contents, security=security
    )


def _contents(
    task: FoundTask,
    reward: RewardConfig | None,
    reward_files: Mapping[str, Mapping[str, Path]],
    *,
    search_path: Sequence[str] | None,
    security: SecurityConfig,
) -> dict[str, str]:
    found = {f"task_options.{key}": _held_by(path) for key, path in task.files.items()}
    if own := _own(scoring_sources(task.name, search_path=search_path)):
        found["task"] = f"{task.name}@{_digest_of(own)}"
    if reward is None:
        return found
    for name, part in reward.of_source(Source.FUNCTION):
        assert part.use is not None
        where = f"reward.parts.{name}"
        own = _own(function_sources(part.use, search_path=search_path))
        found[f"{where}.use"] = f"{part.use}@{_digest_of(own)}"
        for key, path in reward_files[name].items():
            found[f"{where}.options.{key}"] = _held_by(path)
    for name, part in reward.of_source(Source.SERVER):
        from rewardtune.transport.reward_service.client import RewardClient

        client = RewardClient(part.address, security if part.is_encrypted else None)
        try:
            found[f"reward.parts.{name}.use"] = f"grpc:{client.describe().reward_digest}"
        finally:
            client.close()
    return found


def _held_by(path: Path) -> str:
    return f"sha256:{artefact_digest(path)}"


def _own(sources: Mapping[str, Path]) -> dict[str, Path]:
    """The user's files alone: another version of this project is not another run."""
    return {name: path for name, path in sources.items() if name.partition(".")[0] not in OURS}


def _digest_of(sources: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(sources.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
