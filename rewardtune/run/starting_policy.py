"""The policy that a run begins with: fresh, from a checkpoint, or with somebody's encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from rewardtune.config.run_config import ConfigError, PolicyConfig, RunConfig
from rewardtune.datasets.frame import Square
from rewardtune.policies.find import FRESH, OF_FOLDER, is_from_outside, policy_class
from rewardtune.policies.policy import Policy
from rewardtune.policies.policy_file import LoadedPolicy, check_vocabulary, load_policy
from rewardtune.tasks.task import Task

_ARCHITECTURE = (
    "patch_size",
    "width",
    "num_heads",
    "mlp_width",
    "encoder_depth",
    "decoder_depth",
)


def starting_policy(config: RunConfig, task: Task) -> Policy:
    """On the CPU, in float32.

    Raises:
        ConfigError, PolicyFileError, OSError: one line that says what does not fit.
    """
    wanted = config.policy
    policy = _from_checkpoint(config, task, wanted.checkpoint) if wanted.checkpoint else None
    policy = policy or _fresh(config, task)
    if wanted.readout_every is None:
        return policy
    try:
        return policy.with_readout(wanted.readout_every, seen_as=wanted.readout_seen_as)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _fresh(config: RunConfig, task: Task) -> Policy:
    torch.manual_seed(config.seed)
    policy = policy_class(config.policy.kind or FRESH).fresh(
        {
            "vocab_size": task.vocabulary.size,
            "sequence_length": task.vocabulary.max_tokens,
            **_given_sizes(config.policy),
            **config.policy.options,
        }
    )
    policy.start_levels(task.vocabulary.levels)
    if config.policy.encoder is not None:
        _take_encoder(policy, config.policy.encoder)
    return policy


def _given_sizes(policy: PolicyConfig) -> dict[str, int | str]:
    """What ``[policy]`` says of the network; a kind need not know what is left out."""
    names = (*_ARCHITECTURE, "input_size", "position_embedding")
    defaults = {name: PolicyConfig.model_fields[name].default for name in names}
    values = {name: getattr(policy, name) for name in names}
    return {name: value for name, value in values.items() if value != defaults[name]}


@torch.no_grad()
def _take_encoder(policy: Policy, path: Path) -> None:
    """Start from the encoder of another policy, or of what another library published."""
    if path.suffix == ".npz":
        policy.take_encoder(path)
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


def _from_checkpoint(config: RunConfig, task: Task, checkpoint: Path) -> Policy:
    loaded = _load(config.policy, checkpoint, task)
    policy = loaded.policy
    _check_fits(config, policy, checkpoint)
    needed = task.vocabulary.describe()
    side = config.policy.input_size
    framing = policy.framing if side is None else Square(side=side)
    if config.mode != "pretrain":
        # Rows made anew know nothing yet: they need maximum likelihood before any reward.
        check_vocabulary(loaded.vocabulary, needed, checkpoint)
    if loaded.vocabulary == needed and framing == policy.framing:
        return policy
    torch.manual_seed(config.seed)
    try:
        return policy.carried(
            vocabulary_from=loaded.vocabulary, vocabulary_to=needed, framing=framing
        )
    except ValueError as error:
        raise ConfigError(f"checkpoint {checkpoint}: {error}") from error


def _check_fits(config: RunConfig, policy: Policy, checkpoint: Path) -> None:
    """Hold what the config says of the network against the one that the checkpoint has."""
    kind = config.policy.kind
    if kind is None and is_from_outside(policy.kind):
        raise ConfigError(
            f"checkpoint {checkpoint} is of a class from outside this project: set policy.kind = "
            f"'{policy.kind}', so that its source is part of the run"
        )
    if kind is not None and policy_class(kind) is not type(policy):
        raise ConfigError(
            f"policy.kind = '{kind}' but checkpoint {checkpoint} is '{policy.kind}': leave the "
            "key out to take the checkpoint's"
        )
    dtype = config.sampler.dtype
    if config.mode == "tune" and dtype not in policy.sampler_dtypes:
        raise ConfigError(
            f"sampler.dtype = '{dtype}' but policies of kind '{policy.kind}' are sampled in "
            f"{' or '.join(policy.sampler_dtypes)}: leave the key out"
        )
    for name in _ARCHITECTURE:
        wanted, has = getattr(config.policy, name), getattr(policy.config, name, None)
        if wanted is not None and wanted != has:
            raise ConfigError(
                f"policy.{name} = {wanted} but checkpoint {checkpoint} has {has}: leave the key "
                "out to take the checkpoint's"
            )


def _load(policy: PolicyConfig, checkpoint: Path, task: Task) -> LoadedPolicy:
    """A policy file, or a folder of another library's."""
    if not checkpoint.is_dir():
        return load_policy(checkpoint)
    vocabulary = task.vocabulary
    described = vocabulary.describe()
    kind = policy_class(policy.kind or OF_FOLDER)
    loaded = kind.load(checkpoint, sequence_length=vocabulary.max_tokens)
    try:
        loaded.check_vocabulary(described, vocabulary.stop_tokens)
        vocabulary.check_folder(checkpoint)
    except ValueError as error:
        raise ConfigError(f"checkpoint {checkpoint}: {error}") from error
    return LoadedPolicy(loaded, described, {"model": str(checkpoint)})
