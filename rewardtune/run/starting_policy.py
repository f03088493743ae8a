"""The policy that a run begins with: fresh, from a checkpoint, or with somebody's encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from rewardtune.config.run_config import ConfigError, PolicyConfig, RunConfig
from rewardtune.policies.kinds.big_vision import load_big_vision
from rewardtune.policies.kinds.carry import carry, with_readout
from rewardtune.policies.kinds.encoder_decoder import EncoderDecoder
from rewardtune.policies.network import NetworkPolicy, network_class
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


def starting_policy(config: RunConfig, task: Task) -> NetworkPolicy:
    """On the CPU, in float32.

    Raises:
        ConfigError, PolicyFileError, OSError: one line that says what does not fit.
    """
    checkpoint = config.policy.checkpoint
    policy = _from_checkpoint(config, task, checkpoint) if checkpoint else _fresh(config, task)
    return _with_readout(policy, config.policy)


def _fresh(config: RunConfig, task: Task) -> NetworkPolicy:
    torch.manual_seed(config.seed)
    policy = network_class(config.policy.kind or "encoder_decoder").fresh(
        {
            "vocab_size": task.vocabulary.size,
            "sequence_length": task.vocabulary.max_tokens,
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
    needed = task.vocabulary.describe()
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
        asked = "policy.readout = true" if wanted.readout else f"policy.readout_every = {every}"
        raise ConfigError(
            f"{asked} needs a policy of kind 'encoder_decoder', got "
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
                    f"policy.{key} = {value} but the checkpoint has {found}: leave the keys of the "
                    "readout out to take the checkpoint's"
                )
        return policy
    if policy.sequence_length % every:
        raise ConfigError(
            f"policy.readout_every = {every} does not divide the {policy.sequence_length} tokens "
            "of a sequence: set policy.readout = true instead, which takes the task's own steps"
        )
    if seen_as is not None and seen_as >= policy.vocab_size:
        raise ConfigError(
            f"policy.readout_seen_as = {seen_as} is none of the policy's {policy.vocab_size} "
            "tokens: set policy.readout = true instead, which takes it from the task"
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

    policy = load_hugging_face(checkpoint, sequence_length=task.vocabulary.max_tokens)
    if policy.vocab_size != task.vocabulary.size:
        raise ConfigError(
            f"the model in {checkpoint} has {policy.vocab_size} tokens but the task's vocabulary "
            f"{task.vocabulary.size}: set task_options.vocabulary to the tokenizer that the model "
            "was trained with"
        )
    _check_pieces(checkpoint, task)
    stops = policy.config.stop_tokens
    wanted = task.vocabulary.stop_tokens
    if stops and wanted and not set(wanted) & set(stops):
        raise ConfigError(
            f"the model in {checkpoint} ends a sequence with token {stops[0]} but the task with "
            f"{wanted[0]}: set task_options.stop to the piece that the model ends with"
        )
    return LoadedPolicy(policy, task.vocabulary.describe(), {"model": str(checkpoint)})


def _check_pieces(checkpoint: Path, task: Task) -> None:
    """Hold the task's tokenizer against the one in the model's folder, if there is one."""
    from rewardtune.tasks.captioning.vocabulary import VocabularyError, load_vocabulary

    needed = task.vocabulary.describe().get("pieces_digest")
    try:
        own = load_vocabulary(checkpoint) if needed else None
    except VocabularyError:
        return  # there is none, or one with other special pieces
    if own is not None and own.digest != needed:
        raise ConfigError(
            f"task_options.vocabulary is of other pieces than the model's own tokenizer in "
            f"{checkpoint}: set it to that folder"
        )
