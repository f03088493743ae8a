"""From a config to the parts of a run: data sets, task, policy, device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reward_workers.scoring.resolved import Resolved, resolve
from reward_workers.scoring.reward import Reward
from rewardtune.config.run_config import ConfigError, PolicyConfig, RunConfig
from rewardtune.datasets.order import DataOrder
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.policies.draw import Decoding
from rewardtune.policies.find import is_from_outside
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import policy_digest
from rewardtune.policies.weights import is_float32_only
from rewardtune.run.starting_policy import starting_policy
from rewardtune.tasks.artefacts import artefact_digest
from rewardtune.tasks.task import Task, TokenRewardsTask, check_score_rule
from sampler.sampler import Sampler


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with; the config is pinned to it."""

    config: RunConfig
    resolved: Resolved
    train: ShardDataset
    holdout: ShardDataset | None
    task: Task
    policy: Policy
    device: torch.device


@dataclass(frozen=True, slots=True)
class _StartDigests:
    """Of the files that a run's first weights come from; None: there is none, or it is told."""

    checkpoint: str | None = None
    encoder: str | None = None


def assemble(config: RunConfig, *, on_cpu: bool = False) -> Parts:
    """For whoever starts a run: find, hash and open what its config names. Nothing is written.

    Args:
        on_cpu: for a process that leaves the run's device to others.

    Raises:
        ConfigError, ValueError, OSError: with one line that says what to fix.
    """
    kind = config.policy.kind
    resolved = resolve(
        config.task,
        config.task_options,
        config.reward if config.mode == "tune" else None,
        artefacts=config.operations.artefacts,
        contents=config.contents or None,
        security=config.security,
        policy=kind if kind is not None and is_from_outside(kind) else None,
    )
    return _open(config, resolved, _start_digests(config.policy), on_cpu=on_cpu)


def assemble_service(
    config: RunConfig, *, on_cpu: bool = False, begins_with_policy: bool = False
) -> Parts:
    """For a service of a run that was started: it is told what its files hold.

    Args:
        config: pinned.
        begins_with_policy: for the process whose weights come from the file that the config
            names: here, too, it must be the one that the run was started with.

    Raises:
        As ``assemble``.
    """
    resolved = resolve(
        config.task,
        config.task_options,
        None,
        artefacts=config.operations.artefacts,
        contents=config.contents,
        security=config.security,
    )
    digests = _start_digests(config.policy) if begins_with_policy else _StartDigests()
    return _open(config, resolved, digests, on_cpu=on_cpu)


def _open(config: RunConfig, resolved: Resolved, digests: _StartDigests, *, on_cpu: bool) -> Parts:
    torch.set_num_threads(config.compute.threads)
    device = _device(config, on_cpu=on_cpu)
    train = open_dataset(config.data.train)
    holdout = open_dataset(config.data.holdout) if config.data.holdout else None
    if holdout is not None:
        _check_categories(train, holdout)
    task = resolved.load_task(categories=train.categories)
    if config.evaluation.score_rule is not None:
        check_score_rule(config.evaluation.score_rule, task)
    if config.mode == "tune" and isinstance(task, TokenRewardsTask) and task.has_token_rewards:
        config.learner.check_token_rewards()
    pinned = config.pinned(
        device=device,
        num_train=len(train),
        train=train.digest,
        holdout=holdout.digest if holdout else None,
        checkpoint=digests.checkpoint,
        encoder=digests.encoder,
        contents=resolved.contents,
        vocabulary=task.vocabulary,
    )
    here = torch.device("cpu" if on_cpu else device)
    return Parts(
        config=pinned,
        resolved=resolved,
        train=train,
        holdout=holdout,
        task=task,
        policy=starting_policy(pinned, task).to(here),
        device=here,
    )


def build_reward(parts: Parts) -> Reward | None:
    """What the run is rewarded by, ready to score; None: the task's own reward.

    Raises:
        ValueError, RewardUnavailable: as ``reward_workers.scoring.reward.load_reward``.
    """
    return parts.resolved.load_reward(
        task=parts.task,
        dataset_digest=parts.train.digest,
        patience_seconds=parts.config.reward_workers.deadline_seconds,
    )


def sampler_policy(policy: Policy, dtype: Literal["float32", "bfloat16"]) -> Policy:
    """A copy for a sampler, all of it in ``dtype`` except the head."""
    own = copy.deepcopy(policy).eval().requires_grad_(False)
    for name, parameter in own.named_parameters():
        if not is_float32_only(name):
            parameter.data = parameter.data.to(getattr(torch, dtype))
    for buffer in own.buffers():  # fixed position embeddings, which are added to activations
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(getattr(torch, dtype))
    return own


def data_order(parts: Parts) -> DataOrder:
    """Which example, and which view of it, each ordinal of the run stands for."""
    config = parts.config
    return DataOrder(len(parts.train), config.seed, config.data.views)


def build_sampler(parts: Parts) -> Sampler:
    """The run's sampler, with a policy of its own; it has no weights yet."""
    config, settings = parts.config, parts.config.sampler
    return Sampler(
        sampler_policy(parts.policy, settings.dtype),
        task=parts.task,
        dataset=parts.train,
        order=data_order(parts),
        seed=config.seed,
        num_samples=settings.num_samples,
        decoding=Decoding(
            temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
        ),
    )


def _device(config: RunConfig, *, on_cpu: bool) -> Literal["cpu", "cuda"]:
    """What the run computes on, which is not always what this process does."""
    wanted = config.compute.device
    if wanted == "auto":
        has_gpu = torch.cuda.is_available() or config.cluster.learner_gpus > 0
        return "cuda" if has_gpu else "cpu"
    if wanted == "cuda" and not on_cpu and not torch.cuda.is_available():
        raise ConfigError(
            "compute.device = 'cuda' but torch sees no GPU here: set it to 'cpu' or 'auto', or "
            "give the services GPUs by cluster.learner_gpus and cluster.sampler_gpus"
        )
    return wanted


def _check_categories(train: ShardDataset, holdout: ShardDataset) -> None:
    mine, theirs = ([(c.id, c.name) for c in d.categories] for d in (train, holdout))
    if mine != theirs:
        raise ConfigError(
            f"data.holdout = {holdout.path} has {len(theirs)} categories that are not the "
            f"{len(mine)} of data.train = {train.path}: convert both with the same category list"
        )


def _start_digests(policy: PolicyConfig) -> _StartDigests:
    return _StartDigests(
        checkpoint=_digest(policy.checkpoint) if policy.checkpoint else None,
        encoder=_digest(policy.encoder) if policy.encoder else None,
    )


def _digest(path: Path) -> str:
    return artefact_digest(path) if path.is_dir() else policy_digest(path)
