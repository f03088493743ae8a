"""From a config to the parts of a run: data sets, task, policy, device."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reward_workers.scoring.contents import found_contents
from reward_workers.scoring.reward import Reward, load_reward
from rewardtune.config.run_config import ConfigError, PolicyConfig, RunConfig
from rewardtune.datasets.order import DataOrder
from rewardtune.datasets.shards.dataset import ShardDataset, open_dataset
from rewardtune.policies.draw import Decoding
from rewardtune.policies.kinds.big_vision import load_big_vision
from rewardtune.policies.kinds.carry import carry, with_readout
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.network import NetworkPolicy, network_class
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import (
    LoadedPolicy,
    check_vocabulary,
    load_policy,
    policy_digest,
)
from rewardtune.policies.weights import is_float32_only
from rewardtune.tasks.artefacts import artefact_digest
from rewardtune.tasks.task import Task, TokenRewardsTask, load_task
from sampler.sampler import Sampler

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
    policy: NetworkPolicy
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
    artefacts = config.operations.artefacts
    task = load_task(
        config.task, config.task_options, categories=train.categories, artefacts=artefacts
    )
    if config.mode == "tune" and isinstance(task, TokenRewardsTask) and task.has_token_rewards:
        config.learner.check_token_rewards()
    checkpoint = config.policy.checkpoint
    pinned = config.pinned(
        device=device,
        train=train.digest,
        holdout=holdout.digest if holdout else None,
        checkpoint=_digest(checkpoint) if checkpoint else None,
        encoder=_digest(config.policy.encoder) if config.policy.encoder else None,
        contents=_contents(config),
    )
    schedule = pinned.learner.schedule.in_steps(
        batch_size=pinned.learner.batch_size, num_examples=len(train)
    )
    learner = pinned.learner.model_copy(update={"schedule": schedule})
    # Checked again now that durations in epochs are steps.
    pinned = RunConfig.model_validate(pinned.model_copy(update={"learner": learner}).model_dump())
    policy = _from_checkpoint(pinned, task, checkpoint) if checkpoint else _fresh(pinned, task)
    policy = _with_readout(policy, pinned.policy)
    return Parts(
        config=pinned,
        train=train,
        holdout=holdout,
        task=task,
        policy=policy.to(here := torch.device("cpu" if on_cpu else device)),
        device=here,
    )


def _contents(config: RunConfig) -> dict[str, str]:
    """Found once, by whoever starts the run: its services need neither servers nor modules."""
    if config.contents:
        return config.contents
    reward = config.reward if config.mode == "tune" else None
    return found_contents(
        config.task, config.task_options, reward, artefacts=config.operations.artefacts
    )


def build_reward(parts: Parts) -> Reward | None:
    """What the run is rewarded by, ready to score; None: the task's own reward.

    Raises:
        ValueError, RewardUnavailable: as ``reward_workers.scoring.reward.load_reward``.
    """
    config = parts.config
    if config.reward is None:
        return None
    return load_reward(
        config.reward,
        task=parts.task,
        task_name=config.task,
        task_options=config.task_options,
        dataset_digest=parts.train.digest,
        patience_seconds=config.reward_workers.deadline_seconds,
        artefacts=config.operations.artefacts,
    )


def sampler_policy(policy: NetworkPolicy, dtype: Literal["float32", "bfloat16"]) -> Policy:
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


def _fresh(config: RunConfig, task: Task) -> NetworkPolicy:
    torch.manual_seed(config.seed)
    policy = network_class(config.policy.kind or "encoder_decoder").fresh(
        {
            "vocab_size": task.vocab_size,
            "sequence_length": task.sequence_length,
            "position_embedding": config.policy.position_embedding,
            **{name: getattr(config.policy, name) for name in (*_ARCHITECTURE, "input_size")},
        }
    )
    if config.policy.encoder is not None:
        _take_encoder(policy, config.policy.encoder)
    return policy


@torch.no_grad()
def _take_encoder(policy: NetworkPolicy, path: Path) -> None:
    """Start from the encoder of another policy, or of a published ViT."""
    if path.suffix == ".npz":
        assert isinstance(policy, EncoderDecoder)
        load_big_vision(policy, path)
        return
    found = load_policy(path).policy.tensors()
    own = {name: p for name, p in policy.tensors().items() if not name.startswith("decoder.")}
    for name, parameter in own.items():
        if name not in found or found[name].shape != parameter.shape:
            has = list(found[name].shape) if name in found else "no such parameter"
            raise ConfigError(
                f"policy.encoder = {path} does not fit: '{name}' should be "
                f"{list(parameter.shape)} but it has {has}: give the policy the encoder's sizes"
            )
        parameter.copy_(found[name])


def _from_checkpoint(config: RunConfig, task: Task, checkpoint: Path) -> NetworkPolicy:
    loaded = _load(checkpoint, task)
    policy, kind = loaded.policy, loaded.policy.architecture
    _check_kind(config, kind, checkpoint)
    for name in _ARCHITECTURE:
        wanted, has = getattr(config.policy, name), getattr(policy.config, name, None)
        if wanted is not None and wanted != has:
            raise ConfigError(
                f"policy.{name} = {wanted} but checkpoint {checkpoint} has {has}: leave the key "
                "out to take the checkpoint's"
            )
    needed = task.describe_vocabulary()
    input_size = config.policy.input_size or policy.input_size
    if config.mode == "pretrain" and isinstance(policy, EncoderDecoder):
        if loaded.vocabulary == needed and input_size == policy.input_size:
            return policy
    else:
        # Rows made anew know nothing yet: they need maximum likelihood before any reward.
        check_vocabulary(loaded.vocabulary, needed, checkpoint)
    if isinstance(policy, EncoderDecoder):
        torch.manual_seed(config.seed)
        return carry(
            policy,
            vocabulary_from=loaded.vocabulary,
            vocabulary_to=needed,
            input_size=input_size,
        )
    if input_size != policy.input_size:
        raise ConfigError(
            f"policy.input_size = {input_size} but checkpoint {checkpoint} has "
            f"{policy.input_size}, and policies of kind '{kind}' keep theirs: leave the key out"
        )
    return policy


def _with_readout(policy: NetworkPolicy, wanted: PolicyConfig) -> NetworkPolicy:
    every, seen_as = wanted.readout_every, wanted.readout_seen_as
    if every is None:
        return policy
    if not isinstance(policy, EncoderDecoder):
        raise ConfigError(
            f"policy.readout_every = {every} needs a policy of kind 'encoder_decoder', got "
            f"'{policy.architecture}': leave the key out"
        )
    has = policy.config
    if has.readout_every is not None:
        for key, value, found in (
            ("readout_every", every, has.readout_every),
            ("readout_seen_as", seen_as, has.readout_seen_as),
        ):
            if value not in (None, found):
                raise ConfigError(
                    f"policy.{key} = {value} but the checkpoint has {found}: leave the key out to "
                    "take the checkpoint's"
                )
        return policy
    if policy.sequence_length % every:
        raise ConfigError(
            f"policy.readout_every = {every} does not divide the {policy.sequence_length} tokens "
            "of a sequence: set it to the tokens of a step (a detector's box: 6)"
        )
    if seen_as is not None and seen_as >= policy.vocab_size:
        raise ConfigError(
            f"policy.readout_seen_as = {seen_as} is none of the policy's {policy.vocab_size} "
            "tokens: set it to one that stands at these positions (a detector's confidence: 2)"
        )
    return with_readout(policy, every, seen_as=seen_as)


def _check_kind(config: RunConfig, kind: str, checkpoint: Path) -> None:
    if config.policy.kind not in (None, kind):
        raise ConfigError(
            f"policy.kind = '{config.policy.kind}' but checkpoint {checkpoint} is '{kind}': leave "
            "the key out to take the checkpoint's"
        )
    if kind == "hugging_face" and config.mode == "tune" and config.sampler.dtype != "float32":
        raise ConfigError(
            f"sampler.dtype = '{config.sampler.dtype}' but Hugging Face policies are sampled in "
            "float32: leave the key out"
        )


def _load(checkpoint: Path, task: Task) -> LoadedPolicy:
    """A policy file, or a folder of transformers'."""
    if not checkpoint.is_dir():
        return load_policy(checkpoint)
    from rewardtune.policies.hugging_face.files import load_hugging_face

    policy = load_hugging_face(checkpoint, sequence_length=task.sequence_length)
    if policy.vocab_size != task.vocab_size:
        raise ConfigError(
            f"the model in {checkpoint} has {policy.vocab_size} tokens but the task's vocabulary "
            f"{task.vocab_size}: set task_options.vocabulary to the tokenizer that the model was "
            "trained with"
        )
    _check_pieces(checkpoint, task)
    stops = policy.config.stop_tokens
    if stops and task.stop_token is not None and task.stop_token not in stops:
        raise ConfigError(
            f"the model in {checkpoint} ends a sequence with token {stops[0]} but the task with "
            f"{task.stop_token}: set task_options.stop to the piece that the model ends with"
        )
    return LoadedPolicy(policy, task.describe_vocabulary(), {"model": str(checkpoint)})


def _check_pieces(checkpoint: Path, task: Task) -> None:
    """Hold the task's tokenizer against the one in the model's folder, if there is one."""
    from rewardtune.tasks.captioning.vocabulary import VocabularyError, load_vocabulary

    needed = task.describe_vocabulary().get("pieces_digest")
    try:
        own = load_vocabulary(checkpoint) if needed else None
    except VocabularyError:
        return  # there is none, or one with other special pieces
    if own is not None and own.digest != needed:
        raise ConfigError(
            f"task_options.vocabulary is of other pieces than the model's own tokenizer in "
            f"{checkpoint}: set it to that folder"
        )


def _digest(path: Path) -> str:
    return artefact_digest(path) if path.is_dir() else policy_digest(path)
