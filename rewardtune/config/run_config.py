"""What a run can be told: one TOML file, checked whole before anything starts.

A config is identity plus operations. Identity (task, data, policy, learner, sampler, depth,
compute, seed) decides the final weights to the byte; operations (paths, evaluation, services)
may change between two starts of the same run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from learner.config import LearnerConfig
from reward_workers.config import RewardWorkerConfig
from reward_workers.scoring.config import RewardConfig
from rewardtune.config.cluster_config import ClusterConfig
from rewardtune.datasets.view import ViewConfig
from rewardtune.policies.find import OURS, is_from_outside, is_kind
from rewardtune.tasks.artefacts import with_options
from rewardtune.tasks.vocabulary import Vocabulary
from rewardtune.transport.security.config import SecurityConfig
from sampler.config import SamplerConfig

Mode = Literal["pretrain", "tune"]

_OPERATIONS = ("operations", "evaluation", "reward_workers", "cluster", "security")
"""Sections that no weight depends on."""


class ConfigError(ValueError):
    """The config cannot be run; the message is one line for the person who wrote it."""


class Section(BaseModel):
    """A table of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """The three data sets, and the views of them that training sees.

    Where they lie is operations; what they hold is identity, by digest.
    """

    train: Path
    """Folder of shards, as ``rewardtune data`` writes it; so are the others."""

    holdout: Path | None = None
    """On which everything is chosen: stopping, learning rates, the best checkpoint."""

    validation: Path | None = None
    """Gives reported figures and decides nothing."""

    train_digest: str | None = None
    """Hash of the manifest; filled in when the run starts, or given here to insist on it."""

    holdout_digest: str | None = None

    validation_digest: str | None = None

    views: ViewConfig = ViewConfig()


class PolicyConfig(Section):
    """The network, and the weights it starts from. Sizes left out are the checkpoint's."""

    kind: str | None = None
    """Of the network: a ViT and an autoregressive decoder ("encoder_decoder"), one that draws all
    tokens at once ("parallel"), transformers' VisionEncoderDecoderModel ("hugging_face"), or
    "module:Class" of your own (docs/custom_policies.md). None: the checkpoint's; without one, the
    first."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Further settings of a network that starts without a checkpoint, which its kind validates."""

    checkpoint: Path | None = None
    """A policy file; for a Hugging Face model the folder that ``save_pretrained`` wrote will do."""

    checkpoint_digest: str | None = None
    """Filled in when the run starts, or given here to insist on it."""

    encoder: Path | None = None
    """Where a policy without checkpoint takes its encoder from: a policy file, or a published ViT
    (``.npz``), whose positions are resampled."""

    encoder_digest: str | None = None

    input_size: PositiveInt | None = None
    """Side of the square input in pixels. Other than the checkpoint's: positions are resampled."""

    patch_size: PositiveInt | None = None
    width: PositiveInt | None = None
    num_heads: PositiveInt | None = None
    mlp_width: PositiveInt | None = None
    encoder_depth: PositiveInt | None = None
    decoder_depth: PositiveInt | None = None

    position_embedding: Literal["learned", "sincos2d"] = "learned"
    """Of a policy that starts without a checkpoint."""

    readout: bool = False
    """Decoder blocks of their own for the tokens that the task's vocabulary reads out, such as a
    detector's confidences, which no other token's distribution feels
    (``rewardtune.policies.networks.readout``). A policy without them gets a copy of its
    decoder's."""

    readout_every: int | None = Field(default=None, ge=2)
    """The last of so many tokens is read out. With ``readout`` filled in from the task's vocabulary
    when the run starts; given here it counts by itself."""

    readout_seen_as: PositiveInt | None = None
    """Later tokens see this one in place of any that was read out, but for padding: what a box's
    confidence is then changes no other box. Filled in as ``readout_every`` is, which it needs."""

    @property
    def missing_sizes(self) -> list[str]:
        """Keys without a value, which only a checkpoint can fill in; a kind of your own knows."""
        if self.kind is not None and is_from_outside(self.kind):
            return []
        optional = {
            "kind", "checkpoint", "checkpoint_digest", "encoder", "encoder_digest",
            "readout_every", "readout_seen_as",
        }  # fmt: skip
        return [name for name, value in self if value is None and name not in optional]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.encoder is not None and self.checkpoint is not None:
            raise ValueError(
                "policy.encoder and policy.checkpoint exclude each other: the checkpoint has an "
                "encoder of its own"
            )
        is_read_out = self.readout or self.readout_every is not None
        if self.readout_seen_as is not None and not is_read_out:
            raise ValueError(
                f"policy.readout_seen_as = {self.readout_seen_as} but nothing is read out: set "
                "policy.readout = true, which takes it from the task, or leave the key out"
            )
        if self.kind is not None and not is_kind(self.kind):
            raise ValueError(
                f"policy.kind = '{self.kind}' is unknown: use one of {', '.join(OURS)}, or "
                "'module:Class' of a class of your own"
            )
        if self.options and self.checkpoint is not None:
            raise ValueError(
                "policy.options and policy.checkpoint exclude each other: the checkpoint's "
                "network has its own"
            )
        if self.input_size and self.patch_size and self.input_size % self.patch_size:
            raise ValueError(
                f"policy.input_size = {self.input_size} is not a multiple of "
                f"policy.patch_size = {self.patch_size}"
            )
        if self.width and self.num_heads and self.width % self.num_heads:
            raise ValueError(
                f"policy.width = {self.width} is not a multiple of "
                f"policy.num_heads = {self.num_heads}"
            )
        return self


class ComputeConfig(Section):
    """What the numbers are computed with, as far as it moves bits."""

    threads: PositiveInt = 2
    """Threads of each process. The order of a sum depends on it."""

    device: Literal["cpu", "cuda", "auto"] = "auto"
    """auto: cuda where there is one. The run records which."""


class EvaluationConfig(Section):
    """How the policy is measured in the course of a run. No weight depends on it."""

    every_steps: PositiveInt | None = None
    """None: before the first step and after the last only."""

    num_examples: PositiveInt | None = None
    """The first so many examples of the holdout set; None: all."""

    metric: str | None = None
    """Names the holdout metric that the best checkpoint is best by; None: the task's first."""

    score_rule: str | None = None
    """How a prediction is ranked, by the task's own names; None: the task's default."""

    decoding: Literal["greedy", "sample"] = "greedy"
    temperature: float = Field(default=1.0, ge=0.001, le=1000)
    """Of decoding = "sample", as is top_p."""

    top_p: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _greedy_has_no_knobs(self) -> Self:
        if self.decoding == "greedy" and (self.temperature != 1.0 or self.top_p is not None):
            raise ValueError(
                "evaluation.temperature and evaluation.top_p need evaluation.decoding = "
                "'sample', but it is 'greedy'"
            )
        return self


class OperationsConfig(Section):
    """Where a run lives and what it reports."""

    directory: Path = Path("runs/unnamed")
    """Run directory. A file read by ``load_config`` defaults to runs/ and its own name."""

    log_every: PositiveInt = 1
    """Steps between two lines of the log."""

    checkpoint_every: PositiveInt = 100
    """Steps between two checkpoints; there is always one at the end."""

    keep_checkpoints: int = Field(default=2, ge=2)
    """Newest checkpoints kept, beside the best one."""

    artefacts: Path | None = None
    """Folder in which files that task_options and reward name are looked for first."""

    progress: bool = True
    """Show a live line where there is a terminal."""


class RunConfig(Section):
    """One run: identity and operations. Built once, logged whole, never mutated.

    Read from TOML by ``load_config``. Identity decides the final weights to the byte and is
    hashed; operations, evaluation, reward_workers, cluster and security may differ between two
    starts.
    """

    task: str
    """A folder of rewardtune/tasks/, or the dotted path of a module of your own."""

    mode: Mode
    """pretrain: maximum likelihood on annotations. tune: REINFORCE on the task's reward."""

    seed: int = Field(default=0, ge=0, lt=2**63)

    depth: int = Field(default=1, ge=0, le=2)
    """How many policy versions sampling may run behind learning; 0 is strictly on-policy."""

    importance_weight: bool | None = None
    """Correct stale rollouts by a truncated weight per sequence; None: wherever there are any."""

    task_options: dict[str, Any] = Field(default_factory=dict)
    """The task's own settings, which it validates itself."""

    reward: RewardConfig | None = None
    """What tuning is rewarded by: "module:function", "grpc://host:port", "grpcs://host:port" (by
    TLS), or a table of parts that compose (docs/custom_rewards.md); None: the task's own reward."""

    contents: dict[str, str] = Field(default_factory=dict)
    """What files, functions and servers hold that task_options and reward name, by the key that
    names them: filled in when the run starts."""

    data: DataConfig
    policy: PolicyConfig
    sampler: SamplerConfig = SamplerConfig()
    learner: LearnerConfig
    compute: ComputeConfig = ComputeConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    operations: OperationsConfig = OperationsConfig()
    reward_workers: RewardWorkerConfig = RewardWorkerConfig()
    cluster: ClusterConfig = ClusterConfig()
    security: SecurityConfig = SecurityConfig()

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        warmup, num_steps = self.learner.schedule.warmup, self.learner.num_steps
        # One given in epochs or examples can be judged only once the data set is open.
        if isinstance(warmup, int) and warmup >= num_steps:
            raise ValueError(
                f"learner.schedule.warmup = {warmup} must be less than "
                f"learner.num_steps = {num_steps}"
            )
        if self.mode == "tune":
            self._can_tune()
        elif self.policy.checkpoint is None and self.policy.missing_sizes:
            raise ValueError(
                f"policy.{self.policy.missing_sizes[0]} is missing: without policy.checkpoint to "
                f"take it from, set {', '.join(self.policy.missing_sizes)} under [policy]"
            )
        return self

    def _can_tune(self) -> None:
        num_samples, learner = self.sampler.num_samples, self.learner
        if self.policy.checkpoint is None:
            raise ValueError(
                "policy.checkpoint is missing: mode = 'tune' starts from a pretrained policy"
            )
        if num_samples < learner.min_samples:
            raise ValueError(
                f"sampler.num_samples = {num_samples} leaves learner.estimator = "
                f"'{learner.estimator}' no other rollout: set sampler.num_samples to "
                f"{learner.min_samples} or more, or learner.estimator to 'first'"
            )
        if num_samples < 2 and learner.baseline:
            raise ValueError(
                f"sampler.num_samples = {num_samples} leaves no rollout for the baseline: set "
                "sampler.num_samples to 2 or more, or learner.baseline to false"
            )
        if learner.discount is not None and self.reward is not None:
            raise ValueError(
                f"learner.discount = {learner.discount} needs a reward told step by step, which "
                "only the task's own can be: leave out learner.discount, or reward"
            )
        self.cluster.check_learners(learner.gradient_shards, self.compute.device)
        if learner.batch_size % self.sampler.micro_batch:
            raise ValueError(
                f"learner.batch_size = {learner.batch_size} is not a multiple of "
                f"sampler.micro_batch = {self.sampler.micro_batch}"
            )

    @property
    def weighs_importance(self) -> bool:
        """Whether rollouts of older versions are corrected for."""
        return self.depth >= 1 if self.importance_weight is None else self.importance_weight

    @property
    def run_name(self) -> str:
        """Names the run where several share a queue: its directory's name."""
        return self.operations.directory.resolve().name

    def drawn_with(self, batch: int) -> int:
        """Policy version that a batch is drawn with: staleness is a constant once it can be."""
        return max(0, batch - self.depth)

    def pinned(
        self,
        *,
        device: Literal["cpu", "cuda"],
        num_train: int,
        train: str,
        holdout: str | None = None,
        validation: str | None = None,
        checkpoint: str | None = None,
        encoder: str | None = None,
        contents: Mapping[str, str] | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> RunConfig:
        """The config with what only a started run knows; its identity is complete after this.

        Args:
            device: what ``compute.device`` came to.
            num_train: examples in the training set: durations in epochs become steps.
            train, holdout, validation, checkpoint, encoder: digests of what the paths hold.
            contents: what the field of that name is to say.
            vocabulary: the task's, which says what a readout reads.

        Raises:
            ConfigError: a digest was given in the config, or by an earlier start, and differs; or
                the task reads nothing out, or something else than the config.
        """
        found = {
            "data.train": train,
            "data.holdout": holdout,
            "data.validation": validation,
            "policy.checkpoint": checkpoint,
            "policy.encoder": encoder,
        }
        values = self.model_dump(mode="json")
        for key, digest in found.items():
            section, name = key.split(".")
            expected = values[section][f"{name}_digest"]
            if expected is not None and digest is not None and digest != expected:
                raise ConfigError(
                    f"{key} = {values[section][name]} has digest {digest} but this run needs "
                    f"{expected}: restore what it held, or start a new run on it"
                )
            values[section][f"{name}_digest"] = digest if digest is not None else expected
        if self.policy.readout and vocabulary is not None:
            values["policy"] |= _readout(self.policy, vocabulary)
        values["contents"] = dict(contents or {})
        values["compute"]["device"] = device
        schedule = self.learner.schedule.in_steps(
            batch_size=self.learner.batch_size, num_examples=num_train
        )
        values["learner"]["schedule"] = schedule.model_dump(mode="json")
        return RunConfig.model_validate(values)

    def identity(self) -> dict[str, Any]:
        """What the final weights depend on, as plain JSON values."""
        values = self.model_dump(mode="json", exclude=set(_OPERATIONS))
        for key in ("train", "holdout", "validation"):
            del values["data"][key]
        for key in ("checkpoint", "encoder"):
            del values["policy"][key]
        if not self.policy.options:  # as before there were any
            del values["policy"]["options"]
        # Once the run has started, what is read out says all of it.
        if not self.policy.readout or self.policy.readout_every is not None:
            del values["policy"]["readout"]
        values["importance_weight"] = self.weighs_importance
        # What is there counts, not where it is.
        contents = values.pop("contents")
        return with_options(values, contents)

    def identity_hash(self) -> str:
        """Hex SHA-256 of the identity's canonical JSON."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def diff(self, other: RunConfig) -> list[str]:
        """Identity keys in which ``other`` differs, as ``key: mine -> theirs``; empty if none."""
        mine, theirs = dict(_flatten(self.identity())), dict(_flatten(other.identity()))
        return [
            f"{key}: {json.dumps(mine.get(key))} -> {json.dumps(theirs.get(key))}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]


def derived(
    config: RunConfig, *, sequence_length: int | None = None, num_train: int | None = None
) -> dict[str, int | float]:
    """The sizes that follow from a config, for ``--dry-run``.

    Args:
        config: any valid config.
        sequence_length: tokens per sequence, as the task says; None leaves token counts out.
        num_train: examples in the training set; None leaves epochs out.
    """
    learner, sampler = config.learner, config.sampler
    sizes: dict[str, int | float] = {
        "images_per_step": learner.batch_size,
        "images_total": learner.batch_size * learner.num_steps,
        "learner_micro_batches_per_step": learner.batch_size // learner.micro_batch,
    }
    trained = learner.batch_size
    if config.mode == "tune":
        rollouts = learner.batch_size * sampler.num_samples
        trained = learner.batch_size * learner.num_trained(sampler.num_samples)
        sizes["rollouts_per_step"] = rollouts
        sizes["rollouts_total"] = rollouts * learner.num_steps
        sizes["sampler_micro_batches_per_step"] = learner.batch_size // sampler.micro_batch
        sizes["groups_in_flight_at_most"] = (config.depth + 1) * learner.batch_size
        if sequence_length is not None:
            sizes["sampled_tokens_per_step"] = rollouts * sequence_length
    sizes["trained_sequences_per_step"] = trained
    if sequence_length is not None:
        sizes["trained_tokens_per_step"] = trained * sequence_length
    if config.policy.input_size and config.policy.patch_size:
        sizes["image_tokens"] = (config.policy.input_size // config.policy.patch_size) ** 2
    if num_train is not None:
        sizes["epochs"] = round(learner.batch_size * learner.num_steps / num_train, 3)
    return sizes


def _readout(policy: PolicyConfig, vocabulary: Vocabulary) -> dict[str, int | None]:
    """What ``policy.readout`` comes to with a task's vocabulary."""
    if not vocabulary.has_readout:
        raise ConfigError(
            f"policy.readout = true but the vocabulary of task '{vocabulary.task}' has nothing to "
            "read out: leave the key out"
        )
    found = {
        "readout_every": vocabulary.step_length,
        "readout_seen_as": vocabulary.readout_seen_as,
    }
    for key, value in found.items():
        if (given := getattr(policy, key)) not in (None, value):
            raise ConfigError(
                f"policy.{key} = {given} but task '{vocabulary.task}' has {value}: leave the key "
                "out to take the task's, or policy.readout to go by the key alone"
            )
    return found


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
