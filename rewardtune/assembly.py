"""From a config to the parts of a run: data sets, task, policy, device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from policies.carry import carry
from policies.draw import Decoding
from policies.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from policies.policy import Policy
from policies.policy_file import check_vocabulary, load_policy, policy_digest
from policies.weights import is_float32_only
from rewardtune.config import ConfigError, RunConfig
from sampler.sampler import Sampler
from tasks.order import DataOrder
from tasks.shards import ShardDataset, open_dataset
from tasks.task import Task, load_task

_ARCHITECTURE = (
    "patch_size",
    "width",
    "num_heads",
    "mlp_width",
    "encoder_depth",
    "decoder_depth",
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works with; the config is pinned to it."""

    config: RunConfig
    train: ShardDataset
    holdout: ShardDataset | None
    task: Task
    policy: EncoderDecoder
    device: torch.device


def assemble(config: RunConfig, *, on_cpu: bool = False) -> Parts:
    """Open what a config names and check that it fits together. Nothing is written.

    Args:
        on_cpu: for a process that leaves the run's device to others.

    Raises:
        ConfigError, ValueError, OSError: with one line that says what to fix.
    """
    torch.set_num_threads(config.compute.threads)
    device = _device(config, on_cpu=on_cpu)
    train = open_dataset(config.data.train)
    holdout = open_dataset(config.data.holdout) if config.data.holdout else None
    if holdout is not None:
        _check_categories(train, holdout)
    task = load_task(config.task, config.task_options, categories=train.categories)
    checkpoint = config.policy.checkpoint
    pinned = config.pinned(
        device=device,
        train=train.digest,
        holdout=holdout.digest if holdout else None,
        checkpoint=policy_digest(checkpoint) if checkpoint else None,
    )
    schedule = pinned.learner.schedule.in_steps(
        batch_size=pinned.learner.batch_size, num_examples=len(train)
    )
    learner = pinned.learner.model_copy(update={"schedule": schedule})
    # Checked again now that durations in epochs are steps.
    pinned = RunConfig.model_validate(pinned.model_copy(update={"learner": learner}).model_dump())
    policy = _from_checkpoint(pinned, task, checkpoint) if checkpoint else _fresh(pinned, task)
    return Parts(
        config=pinned,
        train=train,
        holdout=holdout,
        task=task,
        policy=policy.to(here := torch.device("cpu" if on_cpu else device)),
        device=here,
    )


def sampler_policy(policy: EncoderDecoder, dtype: Literal["float32", "bfloat16"]) -> Policy:
    """A copy for a sampler, all of it in ``dtype`` except the head."""
    own = copy.deepcopy(policy).eval().requires_grad_(False)
    for name, parameter in own.named_parameters():
        if not is_float32_only(name):
            parameter.data = parameter.data.to(getattr(torch, dtype))
    for buffer in own.buffers():  # fixed position embeddings, which are added to activations
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


def _fresh(config: RunConfig, task: Task) -> EncoderDecoder:
    torch.manual_seed(config.seed)
    sizes = {name: getattr(config.policy, name) for name in (*_ARCHITECTURE, "input_size")}
    return EncoderDecoder(
        EncoderDecoderConfig(
            vocab_size=task.vocab_size,
            sequence_length=task.sequence_length,
            position_embedding=config.policy.position_embedding,
            **sizes,
        )
    )


def _from_checkpoint(config: RunConfig, task: Task, checkpoint: Path) -> EncoderDecoder:
    loaded = load_policy(checkpoint)
    found = loaded.policy.config
    for name in _ARCHITECTURE:
        wanted = getattr(config.policy, name)
        if wanted is not None and wanted != getattr(found, name):
            raise ConfigError(
                f"policy.{name} = {wanted} but checkpoint {checkpoint} has "
                f"{getattr(found, name)}: leave the key out to take the checkpoint's"
            )
    needed = task.describe_vocabulary()
    input_size = config.policy.input_size or found.input_size
    if config.mode == "tune":
        # Rows made anew know nothing yet: they need maximum likelihood before any reward.
        check_vocabulary(loaded.vocabulary, needed, checkpoint)
    elif loaded.vocabulary == needed and input_size == found.input_size:
        return loaded.policy
    torch.manual_seed(config.seed)
    return carry(
        loaded.policy,
        vocabulary_from=loaded.vocabulary,
        vocabulary_to=needed,
        input_size=input_size,
    )
